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
	if f := (*fault)(nil); errors.As(err, &f) {
		return f
	}
	if inside := (insideError{}); errors.As(err, &inside) {
		return insideFault(host, inside)
	}
	f := &fault{class: ErrUnreachable, text: host, cause: err, again: true}
	if remedy := certificateRemedy(err); remedy != "" {
		f.again, f.remedy = false, remedy
		return f
	}
	var op *net.OpError
	var dns *net.DNSError
	var proxied *proxyError
	switch {
	case errors.As(err, &proxied):
		f.again, f.remedy = proxied.again(), proxyRemedy
	case errors.As(err, &op) && (op.Op == "proxyconnect" || op.Op == "socks connect"):
		f.remedy = proxyRemedy
	case errors.As(err, &op) && op.Op == "remote error": // a TLS alert
		f.again = false
		f.remedy = "the registry ended the TLS handshake; if it wants a certificate, give --client-cert and --client-key"
	case errors.Is(err, http.ErrSchemeMismatch):
		f.again = false
		f.remedy = "if the registry speaks plain HTTP, use --plain-http"
	case strings.Contains(err.Error(), `malformed HTTP response "\x15\x03`): // net/http has no type for it; 15 03 begins a TLS alert
		f.again, f.remedy = false, secureRemedy
	case strings.Contains(err.Error(), "unsupported transfer encoding"): // nor for this
		f.class, f.again = ErrAnswer, false
		f.remedy = "a proxy in between must not compress what a registry serves"
	case errors.As(err, &dns) && dns.IsNotFound:
		f.remedy = "check how the registry's name is spelled, and this machine's DNS"
	}
	return f
}

const (
	proxyRemedy  = `check the proxy: "proxy" in hosts.toml, else HTTPS_PROXY, HTTP_PROXY and NO_PROXY in the environment`
	secureRemedy = `the registry speaks HTTPS: leave out --plain-http, and on this machine write server = "https://..." into its hosts.toml`
)

// certificateRemedy is for whoever cannot verify a certificate; "" for other
// errors.
func certificateRemedy(err error) string {
	var verification *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &name):
		return "use a name or address that the registry's certificate has"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "check this machine's clock; if it is right, the registry needs a new certificate"
	case errors.As(err, &verification), errors.As(err, &authority):
		return `name its CA with --ca FILE, or as "ca" in the hosts.toml of this registry (see --hosts-dir)`
	}
	return ""
}

// proxyError is the answer of a proxy that does not connect to a registry.
type proxyError struct {
	proxy  string // host
	status int
}

func (p *proxyError) Error() string {
	return fmt.Sprintf("proxy %s answers %d %s", p.proxy, p.status, http.StatusText(p.status))
}

// again: what a proxy refuses it refuses again.
func (p *proxyError) again() bool { return p.status >= 500 }

// connected is a transport's OnProxyConnectResponse.
func connected(_ context.Context, proxy *url.URL, _ *http.Request, resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	return &proxyError{proxy.Host, resp.StatusCode}
}

// advise adds a remedy to an error of a registry that could not be connected
// to. The mere text of such errors tells few people what to look at.
func advise(domain string, err error) error {
	var f *fault
	var network net.Error
	if !errors.As(err, &f) {
		return err
	}
	with := *f
	switch {
	case f.remedy == "" && (errors.Is(f, errStalled) || errors.As(f, &network) && network.Timeout()):
		with.remedy = "check the network, with: peel doctor " + domain + "; or wait longer, with --timeout"
	case f.remedy == "" && errors.As(f, &network):
		with.remedy = "check the registry's name and port, and the network, with: peel doctor " + domain
	default:
		return err
	}
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
		f.refuses(host, login, resp.Request)
	case code == http.StatusForbidden:
		f.class = ErrDenied
		f.text = host + " denies access"
		f.remedy = "check the name, or log in with an account that may have it: peel login " + login
	case code == http.StatusNotFound, code == http.StatusGone:
		f.class = ErrNotFound
		f.text = "not found on " + host
		f.remedy = "check the name and the tag"
	case code == http.StatusProxyAuthRequired:
		f.class, f.cause = ErrUnreachable, nil
		f.text, f.remedy = "the proxy before "+host+" wants a login", proxyRemedy
	case code == http.StatusTooManyRequests:
		f.class, f.again = ErrUnreachable, true
		f.text = host + " limits how often it is asked (" + resp.Status + ")"
		f.remedy = "try again later, or log in: many registries allow more to whom they know: peel login " + login
		f.after = retryAfter(resp.Header.Get("Retry-After"), time.Now())
	case code == http.StatusBadRequest && f.cause != nil && wantsTLS(f.cause.Error()):
		f.class, f.remedy = ErrUnreachable, secureRemedy
	case code == http.StatusRequestTimeout,
		code >= 500 && code != http.StatusNotImplemented && code != http.StatusHTTPVersionNotSupported:
		f.class, f.again = ErrUnreachable, true
		f.remedy = "the registry, or a proxy before it, is in trouble: try again later"
		f.after = retryAfter(resp.Header.Get("Retry-After"), time.Now())
	}
	return f
}

// wantsTLS reports whether the body of a 400 is what Go's servers, nginx or
// Apache say to plain HTTP on a port for HTTPS.
func wantsTLS(body string) bool {
	return strings.Contains(body, "HTTP request to an HTTPS server") ||
		strings.Contains(body, "plain HTTP request was sent to HTTPS port") ||
		strings.Contains(body, "speaking plain HTTP to an SSL-enabled server port")
}

// refuses says that the host does not take what the request logged in with, if
// it was a password or an identity token.
func (f *fault) refuses(host, login string, req *http.Request) {
	if req == nil {
		return
	}
	user, _, named := req.BasicAuth()
	switch {
	case named:
		f.text = fmt.Sprintf("%s does not take the name or the password of %.100q", host, user)
	case req.Method == http.MethodPost && req.Header.Get("Content-Type") == formType:
		f.text = host + " does not take the identity token of the login"
	default:
		return
	}
	f.remedy = "log in again with: peel login " + login
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
