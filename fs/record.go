package fs

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/peelfs/peel/internal/sentinel"
)

// Record says what is mounted where, and by whom. One file each, below the
// cache folder, so that two cache folders never see each other's mounts.
type Record struct {
	Mountpoint string    `json:"mountpoint"`
	Device     string    `json:"device"` // Server.Device
	Reference  string    `json:"reference"`
	Digest     string    `json:"digest"` // of the platform's manifest
	Platform   string    `json:"platform"`
	ServerPID  int       `json:"server_pid"`
	Since      time.Time `json:"since"`
	LogFile    string    `json:"log_file,omitempty"`
}

// Status is a Record with what its server says now.
type Status struct {
	Record
	State        string `json:"state"`         // one of the constants below
	Requests     int64  `json:"requests"`      // sent to registries by this server
	BytesFetched int64  `json:"bytes_fetched"` // body bytes that came back
	BytesPresent int64  `json:"bytes_present"` // uncompressed bytes of the image on disk
	BytesTotal   int64  `json:"bytes_total"`   // uncompressed bytes of the image's layers
	// Compressed bytes of spans that other cached layers had; that were fetched
	// before anybody asked, by a guess or a profile; and how much of the latter
	// nobody has read so far.
	BytesReused     int64        `json:"bytes_reused"`
	BytesPrefetched int64        `json:"bytes_prefetched"`
	BytesUnused     int64        `json:"bytes_unused"`
	LastError       string       `json:"last_error,omitempty"`
	LastFailure     *ReadFailure `json:"last_failure,omitempty"`
}

// What State says.
const (
	StateServing = "serving"
	StateDead    = "dead"   // no server answers
	StateBroken  = "broken" // nor can the record be read; LastError names it
)

const (
	recordFile = "record.json"
	socketFile = "socket"
	// statusTimeout bounds the wait for one server's status.
	statusTimeout = 2 * time.Second
	// maxRefusal is how much is told of why a server refuses a request, bytes.
	maxRefusal = 4 << 10
)

// ErrNoServer: nobody serves a mount.
var ErrNoServer = sentinel.New("no server answers", errdefs.ErrNotFound)

// Route is what the server of a mount can be asked beside its status. Whatever
// the handler looks at must stay until the Publication is closed.
type Route struct {
	Pattern string // a method and a path, "GET /explain" say
	Handler http.HandlerFunc
}

func recordDir(root, mountpoint string) string {
	sum := sha256.Sum256([]byte(mountpoint))
	return filepath.Join(root, hex.EncodeToString(sum[:8]))
}

// Publication makes a mount known to List for as long as it is open.
type Publication struct {
	dir  string
	srv  *http.Server
	done chan error
}

// Publish writes r below root and answers for its status, which is asked of
// status at every query, and on the routes.
func Publish(root string, r Record, status func() Status, routes ...Route) (*Publication, error) {
	dir := recordDir(root, r.Mountpoint)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	l, err := listen(dir)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		st := status()
		st.Record, st.State = r, StateServing
		_ = json.NewEncoder(w).Encode(st) // the asker has gone if this fails
	})
	for _, route := range routes {
		mux.HandleFunc(route.Pattern, route.Handler)
	}
	p := &Publication{dir: dir, srv: &http.Server{Handler: mux, ReadHeaderTimeout: statusTimeout}, done: make(chan error, 1)}
	go func() { p.done <- p.srv.Serve(l) }() // ends with Close
	data, err := json.Marshal(r)
	if err == nil {
		err = writeRecord(dir, data)
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// writeRecord makes the record appear whole: List may look at any moment.
func writeRecord(dir string, data []byte) error {
	next := filepath.Join(dir, recordFile+".new")
	if err := os.WriteFile(next, data, 0o600); err != nil {
		return err
	}
	return os.Rename(next, filepath.Join(dir, recordFile))
}

// Close removes the record. It returns when nobody asks for the status any
// more, so that what status looks at may go next.
func (p *Publication) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), statusTimeout)
	defer cancel()
	err := p.srv.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, p.srv.Close())
	}
	if serr := <-p.done; !errors.Is(serr, http.ErrServerClosed) {
		err = errors.Join(err, serr)
	}
	return errors.Join(err, os.RemoveAll(p.dir))
}

// viaFolder names the socket through an open descriptor of its folder: the
// address of a unix socket holds 107 bytes, a cache folder's path may be longer.
func viaFolder(dir string, use func(addr string) error) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return use(fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), socketFile))
}

func listen(dir string) (l net.Listener, err error) {
	if err := os.Remove(filepath.Join(dir, socketFile)); err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return nil, err
	}
	err = viaFolder(dir, func(addr string) error {
		l, err = (&net.ListenConfig{}).Listen(context.Background(), "unix", addr)
		if ul, ok := l.(*net.UnixListener); ok {
			ul.SetUnlinkOnClose(false) // the address means nothing later; Close removes the folder
		}
		return err
	})
	return l, err
}

// List returns the mounts recorded below root, by mount point.
func List(ctx context.Context, root string) ([]Status, error) {
	folders, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return nil, fmt.Errorf("mount records: %w", err)
	}
	out := []Status{}
	for _, f := range folders {
		st, err := look(ctx, filepath.Join(root, f.Name()))
		if errors.Is(err, iofs.ErrNotExist) {
			continue // not yet mounted, or unmounted meanwhile
		}
		if err != nil {
			st = Status{State: StateBroken, LastError: fmt.Sprintf("unreadable mount record; remove its folder when its mount is gone: %v", err)}
		}
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b Status) int { return strings.Compare(a.Mountpoint, b.Mountpoint) })
	return out, nil
}

// look finds out about the mount whose record is in dir.
func look(ctx context.Context, dir string) (Status, error) {
	file := filepath.Join(dir, recordFile)
	data, err := os.ReadFile(file)
	if err != nil {
		return Status{}, err
	}
	if live, err := query(ctx, dir); err == nil {
		return live, nil
	}
	st := Status{State: StateDead}
	if err := json.Unmarshal(data, &st.Record); err != nil {
		return st, fmt.Errorf("%s: %w", file, err)
	}
	if recordDir(filepath.Dir(dir), st.Mountpoint) != dir {
		return st, fmt.Errorf("%s: it is not the record of %q", file, st.Mountpoint)
	}
	st.LastError = fmt.Sprintf("its server (process %d) does not answer; remove the mount with: peel umount %s", st.ServerPID, st.Mountpoint)
	return st, nil
}

func query(ctx context.Context, dir string) (st Status, err error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	return st, ask(ctx, dir, Question{Pattern: "GET /status", Out: &st})
}

// Question is a request to the server of a mount.
type Question struct {
	Pattern string // a Route's; a query may follow
	In      any    // is sent as JSON; nil: nothing
	Out     any    // the JSON of the answer is decoded into it; nil: there is none
}

// Ask asks the server of the mount on mountpoint, as its record has it, whose
// record is below root. The error is ErrNoServer if nobody answers, or what the
// server says.
func Ask(ctx context.Context, root, mountpoint string, q Question) error {
	if err := ask(ctx, recordDir(root, mountpoint), q); err != nil {
		return fmt.Errorf("server of %s: %w", mountpoint, err)
	}
	return nil
}

func ask(ctx context.Context, dir string, q Question) error {
	method, path, _ := strings.Cut(q.Pattern, " ")
	var in bytes.Buffer
	if q.In != nil {
		if err := json.NewEncoder(&in).Encode(q.In); err != nil {
			return err
		}
	}
	return viaFolder(dir, func(addr string) error {
		tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", addr)
		}}
		defer tr.CloseIdleConnections()
		req, err := http.NewRequestWithContext(ctx, method, "http://peel"+path, &in)
		if err != nil {
			return err
		}
		resp, err := tr.RoundTrip(req)
		if err != nil {
			return noServer(ctx, err)
		}
		defer resp.Body.Close()
		if resp.StatusCode/100 != 2 {
			why, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
			return errors.New(cmp.Or(strings.TrimSpace(string(why)), resp.Status))
		}
		if q.Out == nil {
			return nil
		}
		return json.NewDecoder(resp.Body).Decode(q.Out)
	})
}

// noServer makes ErrNoServer of err unless it is ctx's.
func noServer(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("%w: %w", ErrNoServer, err)
}

// Forget removes the record of a mount whose server is dead.
func Forget(root, mountpoint string) error {
	return os.RemoveAll(recordDir(root, mountpoint))
}
