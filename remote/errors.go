package remote

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/peelfs/peel/internal/sentinel"
)

// Errors of this package, to be compared with errors.Is.
var (
	// ErrNotFound: the registry does not know the image or blob.
	ErrNotFound = sentinel.New("not in the registry", errdefs.ErrNotFound)
	// ErrLogin: credentials are missing or refused. Registries also answer so
	// to hide that a repository does not exist.
	ErrLogin = sentinel.New("login needed", errdefs.ErrUnauthenticated)
	// ErrDenied: the registry knows who asks, and refuses.
	ErrDenied = sentinel.New("access denied", errdefs.ErrPermissionDenied)
	// ErrUnreachable: no usable answer within the retry budget.
	ErrUnreachable = sentinel.New("registry unreachable", errdefs.ErrUnavailable)
	// ErrRange: the registry does not serve this byte range; the blob can
	// still be read from its start.
	ErrRange = sentinel.New("byte range not served", errdefs.ErrNotImplemented)
	// ErrVerify: bytes or lengths are not those that a digest or descriptor
	// promises.
	ErrVerify = sentinel.New("verification failed", errdefs.ErrDataLoss)
	// ErrAnswer: the answer breaks the distribution specification or a limit
	// of this package.
	ErrAnswer = sentinel.New("unusable answer", errdefs.ErrUnknown)
	// ErrUsage: an argument or option cannot be used.
	ErrUsage = sentinel.New("unusable argument", errdefs.ErrInvalidArgument)
)

// errStalled is the cause with which the watchdog cancels a request.
var errStalled = errors.New("no bytes arrived")

const (
	maxErrorBody = 4 << 10 // bytes of an error answer that are read
	maxErrorText = 200     // bytes of it that are shown
)

// fault is why one request failed.
type fault struct {
	class  error // sentinel of this package
	text   string
	cause  error
	remedy string
	// again: another try may succeed, not before the delay after has passed.
	again bool
	after time.Duration
	tries int // how many were made, if several
}

func (f *fault) Error() string {
	var b strings.Builder
	b.WriteString(f.text)
	if f.cause != nil {
		b.WriteString(": " + f.cause.Error())
	}
	if f.tries > 1 {
		fmt.Fprintf(&b, " (gave up after %d attempts)", f.tries)
	}
	if f.remedy != "" {
		b.WriteString("; " + f.remedy)
	}
	return b.String()
}

func (f *fault) Unwrap() []error {
	if f.cause == nil {
		return []error{f.class}
	}
	return []error{f.class, f.cause}
}

// transient reports whether another try may succeed.
func transient(err error) bool {
	var f *fault
	return errors.As(err, &f) && f.again
}

// ended is the error of an operation whose context is done.
func ended(ctx context.Context, last error) error {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		cause := context.Cause(ctx)
		if errors.Is(cause, context.Canceled) {
			return cause
		}
		return fmt.Errorf("%w: %w", context.Canceled, cause)
	}
	f := &fault{class: ErrUnreachable, text: "no answer before the deadline", cause: context.DeadlineExceeded}
	if last != nil && !errors.Is(last, context.DeadlineExceeded) {
		f.text = last.Error()
	}
	return f
}

// transportFault classifies what http.Client.Do or a body's Read returned.
func transportFault(host string, err error) *fault {
	// The text of a url.Error holds the URL with its query.
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	// io.EOF would look like the end of what is read.
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if inside := (insideError{}); errors.As(err, &inside) {
		return insideFault(host, inside)
	}
	f := &fault{class: ErrUnreachable, text: host, cause: err, again: true}
	var verification *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &name):
		f.again = false
		f.remedy = "use a name or address that the registry's certificate has"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		f.again = false
		f.remedy = "check this machine's clock; if it is right, the registry needs a new certificate"
	case errors.As(err, &verification), errors.As(err, &authority):
		f.again = false
		f.remedy = `name its CA as "ca" in the hosts.toml of this registry (see --hosts-dir)`
	case errors.Is(err, http.ErrSchemeMismatch):
		f.again = false
		f.remedy = "if the registry speaks plain HTTP, use --plain-http"
	}
	return f
}

// advise adds a remedy to an error of a registry that could not be connected
// to. The mere text of such errors tells few people what to look at.
func advise(domain string, err error) error {
	var f *fault
	var network *net.OpError
	if !errors.As(err, &f) || f.remedy != "" || !(errors.Is(f, errStalled) || errors.As(f, &network)) {
		return err
	}
	with := *f
	with.remedy = "check the registry's name and port, and the network, with: peel doctor " + domain
	return &with
}

// statusFault classifies an answer that is not a success. It reads a bounded
// part of the body for the registry's own words. login is the name to log in
// to.
func statusFault(host, login string, resp *http.Response) *fault {
	f := &fault{text: host + " answers " + resp.Status, class: ErrAnswer}
	f.cause = message(resp.Body)
	switch code := resp.StatusCode; {
	case code == http.StatusUnauthorized:
		f.class = ErrLogin
		f.text = "not found on " + host + ", or login needed"
		f.remedy = loginRemedy(login)
	case code == http.StatusForbidden:
		f.class = ErrDenied
		f.text = host + " denies access"
		f.remedy = "check the name, or log in with an account that may pull it"
	case code == http.StatusNotFound, code == http.StatusGone:
		f.class, f.cause = ErrNotFound, nil
		f.text = "not found on " + host
		f.remedy = "check the name and the tag"
	case code == http.StatusRequestTimeout, code == http.StatusTooManyRequests,
		code >= 500 && code != http.StatusNotImplemented && code != http.StatusHTTPVersionNotSupported:
		f.class, f.again = ErrUnreachable, true
		f.after = retryAfter(resp.Header.Get("Retry-After"), time.Now())
	}
	return f
}

// loginRemedy is for whoever has no login, or a wrong one.
func loginRemedy(login string) string { return "check the name, or log in with: peel login " + login }

// message is the registry's own explanation in an error answer: the first of
// the error objects (OCI distribution specification, "Error Codes"), else the
// first line of a text.
func message(body io.Reader) error {
	raw, err := io.ReadAll(io.LimitReader(body, maxErrorBody))
	if err != nil || len(raw) == 0 {
		return nil
	}
	var doc struct {
		Errors []struct{ Code, Message string }
	}
	var text string
	if json.Unmarshal(raw, &doc) == nil && len(doc.Errors) > 0 {
		text = strings.TrimPrefix(doc.Errors[0].Code+": "+doc.Errors[0].Message, ": ")
	} else if line, _, _ := strings.Cut(string(raw), "\n"); !strings.HasPrefix(line, "<") && !strings.HasPrefix(line, "{") {
		text = line
	}
	text = strings.TrimSpace(text)
	if text == "" {
		return nil
	}
	return errors.New(strconv.Quote(text[:min(len(text), maxErrorText)]))
}

// retryAfter reads the header of RFC 9110 section 10.2.3: seconds or a date.
func retryAfter(s string, now time.Time) time.Duration {
	if sec, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(sec) * time.Second
	}
	if at, err := http.ParseTime(s); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}
