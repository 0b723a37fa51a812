package sentinel

// New returns an error that reads text and is, to errors.Is, each of classes.
func New(text string, classes ...error) error {
	return &sentinel{text, classes}
}

type sentinel struct {
	text    string
	classes []error
}

func (s *sentinel) Error() string   { return s.text }
func (s *sentinel) Unwrap() []error { return s.classes }
