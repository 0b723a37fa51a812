package remote

import (
	"io"
	"math"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
)

// maxPartHead bounds, in bytes, what comes before the first part's own.
const maxPartHead = 64 << 10

// onlyPart opens an answer of type multipart/byteranges (RFC 9110 section
// 14.6), which no server should send that was asked for one range, and some
// do. It returns the first part's bytes and its Content-Range; those of any
// other answer as they are.
func onlyPart(a *answer) (io.ReadCloser, string, error) {
	crange := a.Header.Get("Content-Range")
	kind, params, err := mime.ParseMediaType(a.Header.Get("Content-Type"))
	if a.StatusCode != http.StatusPartialContent || crange != "" || err != nil || !strings.EqualFold(kind, "multipart/byteranges") {
		return a.Body, crange, nil
	}
	in := &io.LimitedReader{R: a.Body, N: maxPartHead}
	first, err := multipart.NewReader(in, params["boundary"]).NextRawPart()
	if err != nil {
		return nil, "", partFault(a.url.Host, err)
	}
	in.N = math.MaxInt64
	return struct {
		io.Reader
		io.Closer
	}{first, a.Body}, first.Header.Get("Content-Range"), nil
}
