package fs

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPublishedMountIsListedWithLiveNumbers(t *testing.T) {
	t.Parallel()
	// Longer than the 107 bytes that the address of a unix socket holds.
	root := filepath.Join(t.TempDir(), strings.Repeat("deep/", 40))
	rec := Record{Mountpoint: "/mnt/a", Reference: "docker.io/library/a:1", Digest: "sha256:00", ServerPID: os.Getpid(), Since: time.Unix(1700000000, 0).UTC()}
	requests := int64(0)
	p, err := Publish(root, rec, func() Status {
		requests++
		return Status{Requests: requests, BytesFetched: 7}
	})
	if err != nil {
		t.Fatal(err)
	}
	for want := int64(1); want <= 2; want++ {
		got, err := List(t.Context(), root)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]Status{{Record: rec, State: "serving", Requests: want, BytesFetched: 7}}, got); diff != "" {
			t.Error(diff)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := List(t.Context(), root); err != nil || len(got) != 0 {
		t.Errorf("after Close: %v, %v", got, err)
	}
}

func TestDeadServerIsListedAsDead(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	p, err := Publish(root, Record{Mountpoint: "/mnt/b", ServerPID: 1}, func() Status { return Status{} })
	if err != nil {
		t.Fatal(err)
	}
	// As a kill -9 leaves it: the record is there and nobody listens.
	if err := p.srv.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-p.done; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
	got, err := List(t.Context(), root)
	if err != nil || len(got) != 1 || got[0].State != "dead" || got[0].Mountpoint != "/mnt/b" || !strings.Contains(got[0].LastError, "peel umount /mnt/b") {
		t.Fatalf("got %+v, %v", got, err)
	}
	if err := Forget(root, "/mnt/b"); err != nil {
		t.Fatal(err)
	}
	if got, err := List(t.Context(), root); err != nil || len(got) != 0 {
		t.Errorf("after Forget: %v, %v", got, err)
	}
}

func TestBrokenRecordsHideNoOther(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, record string }{
		{"cut off", "{"},
		{"empty", ""},
		{"another's", `{"mountpoint": "/etc"}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			p, err := Publish(root, Record{Mountpoint: "/mnt/c"}, func() Status { return Status{} })
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			file := filepath.Join(root, "x", recordFile)
			if err := errors.Join(os.Mkdir(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(tc.record), 0o600)); err != nil {
				t.Fatal(err)
			}
			got, err := List(t.Context(), root)
			if err != nil || len(got) != 2 {
				t.Fatalf("%+v, %v", got, err)
			}
			if got[0].State != StateBroken || got[0].Mountpoint != "" || !strings.Contains(got[0].LastError, file) || got[1].State != StateServing {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestUnreadableRecordsAreNotNone(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "mounts")
	if got, err := List(t.Context(), root); err != nil || len(got) != 0 {
		t.Errorf("no folder: %v, %v", got, err)
	}
	if err := os.WriteFile(root, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := List(t.Context(), root); err == nil {
		t.Errorf("not a folder: %v", got)
	}
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	greet := func(w http.ResponseWriter, r *http.Request) {
		var name string
		if err := json.NewDecoder(r.Body).Decode(&name); err != nil || r.URL.Query().Get("n") != "2" {
			http.Error(w, "nobody to greet", http.StatusBadRequest)
			return
		}
		_ = json.NewEncoder(w).Encode("hello " + name)
	}
	p, err := Publish(root, Record{Mountpoint: "/mnt/d"}, func() Status { return Status{} }, Route{Pattern: "POST /greet", Handler: greet})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name       string
		mountpoint string
		q          Question
		out        any
		err        string
	}{
		{name: "answer", mountpoint: "/mnt/d", q: Question{Pattern: "POST /greet?n=2", In: "you"}, out: "hello you"},
		{name: "refusal", mountpoint: "/mnt/d", q: Question{Pattern: "POST /greet?n=1", In: "you"}, err: "server of /mnt/d: nobody to greet"},
		{name: "nothing sent", mountpoint: "/mnt/d", q: Question{Pattern: "POST /greet?n=2"}, err: "server of /mnt/d: nobody to greet"},
		{name: "no such route", mountpoint: "/mnt/d", q: Question{Pattern: "GET /nothing"}, err: "server of /mnt/d: 404 page not found"},
		{name: "no such mount", mountpoint: "/mnt/e", q: Question{Pattern: "GET /status"}, err: "no such file or directory"},
	} {
		var out any
		tc.q.Out = &out
		err := Ask(t.Context(), root, tc.mountpoint, tc.q)
		if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
			t.Errorf("%s: %v", tc.name, err)
		}
		if diff := cmp.Diff(tc.out, out); diff != "" {
			t.Errorf("%s: %s", tc.name, diff)
		}
	}
	if err := p.srv.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-p.done; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
	if err := Ask(t.Context(), root, "/mnt/d", Question{Pattern: "GET /status"}); !errors.Is(err, ErrNoServer) {
		t.Errorf("dead server: %v", err)
	}
}
