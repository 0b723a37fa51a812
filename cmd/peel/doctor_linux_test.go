package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckKernel(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, release, want string }{
		{"ancient", "3.10.0-1160.el7.x86_64", "fail"},
		{"just too old", "4.17.19", "fail"},
		{"no resend", "6.1.0-28-amd64", "warn"},
		{"first with resend", "6.9.0", "ok"},
		{"next major", "7.0-rc1", "ok"},
		{"unknown", "", "warn"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if f := checkKernel(tc.release); f.Status != tc.want || (f.Remedy == "") != (tc.want == "ok") {
				t.Errorf("%+v, want %s", f, tc.want)
			}
		})
	}
}

func TestCheckAllowOther(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		uid  int
		conf string
		want string
	}{
		{"root", 0, "", "ok"},
		{"allowed", 1000, "# fuse\nmount_max = 5\nuser_allow_other\n", "ok"},
		{"commented out", 1000, "#user_allow_other\n", "warn"},
		{"empty", 1000, "", "warn"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			conf := filepath.Join(t.TempDir(), "fuse.conf")
			if err := os.WriteFile(conf, []byte(tc.conf), 0o600); err != nil {
				t.Fatal(err)
			}
			if f := checkAllowOther(tc.uid, conf); f.Status != tc.want {
				t.Errorf("%+v, want %s", f, tc.want)
			}
		})
	}
	if f := checkAllowOther(1000, filepath.Join(t.TempDir(), "absent")); f.Status != "warn" {
		t.Errorf("without fuse.conf: %+v", f)
	}
}

func TestDoctor(t *testing.T) {
	t.Parallel()
	reg := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }))
	t.Cleanup(reg.Close) // after the parallel sub-tests
	alive := strings.TrimPrefix(reg.URL, "http://")
	for _, tc := range []struct {
		name       string
		registries []string
		want       map[string]string
		fails      bool
	}{
		{"answers", []string{alive}, map[string]string{"registry " + alive: "ok"}, false},
		{"one is dead", []string{"127.0.0.1:1", alive}, map[string]string{"registry " + alive: "ok", "registry 127.0.0.1:1": "fail"}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := peel(t, append([]string{"doctor", "--json"}, tc.registries...)...)
			var findings []finding
			if err := json.Unmarshal([]byte(got.out), &findings); err != nil {
				t.Fatalf("%v: %+v", err, got)
			}
			status := map[string]string{}
			for _, f := range findings {
				status[f.Check] = f.Status
			}
			for check, want := range tc.want {
				if status[check] != want {
					t.Errorf("%s: %q, want %q", check, status[check], want)
				}
			}
			if status["cache folder"] != "ok" || status["kernel"] == "" {
				t.Errorf("findings %+v", findings)
			}
			if tc.fails && (got.code != 1 || !strings.Contains(got.err, "checks failed")) {
				t.Errorf("exit code %d, %q", got.code, got.err)
			}
		})
	}
}
