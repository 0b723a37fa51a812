package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/fs"
	"github.com/peelfs/peel/layer"
)

func TestJudge(t *testing.T) {
	t.Parallel()
	const (
		gzipLayer = ocispec.MediaTypeImageLayerGzip
		plain     = "no annotation with the digest of a table of contents"
		toc       = "containerd.io/snapshot/stargz/toc.digest"
	)
	big := func(l layerInspection) layerInspection {
		if l.Spans == 0 {
			l.Spans = 30
		}
		l.Compressed, l.BytesTotal = 10<<20, 30<<20
		return l
	}
	for _, tc := range []struct {
		name        string
		image       inspection
		layer       layerInspection
		desc        ocispec.Descriptor
		why, advice string // parts
		none        bool   // no advice is given
	}{
		{
			name: "eStargz", layer: layerInspection{Access: "lazy", Format: "eStargz", TOC: "sha256:1"},
			why: "eStargz, by the table of contents", none: true,
		},
		{
			name: "gzip with an index", layer: layerInspection{Access: "lazy", Format: "gzip", Index: "sha256:1", Origin: "SOCI index v2"},
			why: "by an index: SOCI index v2", none: true,
		},
		{
			name: "index of what cannot be entered", layer: big(layerInspection{Access: "resident", Format: "zstd", Index: "sha256:1", Resident: "one frame"}),
			why: "the first read fetches all: one frame", advice: "peel convert --format estargz r IMAGE",
		},
		{
			name: "plain gzip", layer: big(layerInspection{Access: "streamed", Format: "gzip", Reason: plain}),
			why: "plain gzip, without an index", advice: "peel index push r, ",
		},
		{
			name: "small plain gzip", layer: layerInspection{Access: "streamed", Format: "gzip", Reason: plain, Spans: 1, Compressed: 1000},
			why: "so small", none: true,
		},
		{
			name: "one frame of zstd", layer: big(layerInspection{Access: "streamed", Format: "zstd", Reason: plain, Spans: 1}),
			why: "entered at its beginning only", advice: "peel convert",
		},
		{
			name: "zstd that is resident", layer: big(layerInspection{Access: "streamed", Format: "zstd", Reason: plain, Resident: "one frame of 300 MB"}),
			why: "nor would one help: one frame of 300 MB", advice: "peel convert",
		},
		{
			name: "table of no use", layer: big(layerInspection{Access: "streamed", Format: "gzip", Reason: "its footer is none"}),
			desc: ocispec.Descriptor{MediaType: gzipLayer, Annotations: map[string]string{toc: "sha256:" + strings.Repeat("0", 64)}},
			why:  "its table of contents is of no use: its footer is none", advice: "peel convert",
		},
		{
			name: "no ranges", layer: big(layerInspection{Access: "streamed", Format: "gzip", Reason: "the registry refuses byte ranges: 200"}),
			why: "refuses byte ranges", advice: "hosts.toml",
		},
		{
			name: "index of no use", layer: big(layerInspection{Access: "streamed", Format: "gzip", Reason: "index sha256:1 (peel index of r) not used: wrong; " + plain}),
			why: "not used: wrong", advice: "peel index push r",
		},
		{
			name: "schema 1", image: inspection{Schema1: true}, layer: big(layerInspection{Access: "streamed", Format: "gzip", Reason: "x"}),
			why: "schema 1", advice: "peel save r -o oci:DIR",
		},
		{
			name: "artifact", image: inspection{ArtifactType: "a/b"}, layer: big(layerInspection{Access: "streamed", Format: "tar", Reason: "it is a file, not a tar"}),
			why: "file of an artifact", none: true,
		},
		{
			name: "on this machine", image: inspection{Transport: "oci"}, layer: big(layerInspection{Access: "streamed", Format: "gzip", Reason: plain}),
			why: "lies on this machine", none: true,
		},
		{
			name: "foreign", layer: big(layerInspection{Access: "streamed", Format: "gzip", Reason: plain}),
			desc: ocispec.Descriptor{MediaType: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"},
			why:  "no registry may distribute it", none: true,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tc.image.Reference = "r"
			got := tc.image.judge(&tc.layer, tc.desc)
			if !strings.Contains(got.Why, tc.why) || !strings.Contains(got.Advice, tc.advice) || tc.none != (got.Advice == "") {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestExplainedImage(t *testing.T) {
	t.Parallel()
	plain := layerInspection{Digest: "sha256:" + strings.Repeat("a", 64), Access: "streamed", Format: "gzip", Reason: "x", Spans: 9, Compressed: 2 << 20, BytesTotal: 4 << 20}
	other := plain
	other.Digest = "sha256:" + strings.Repeat("b", 64)
	lazy := layerInspection{Digest: "sha256:" + strings.Repeat("c", 64), Access: "lazy", Format: "eStargz", TOC: "sha256:1"}
	e := explainImage(inspection{Reference: "r", Layers: []layerInspection{plain, lazy, other}}, make([]ocispec.Descriptor, 3))
	if e.Lazy != 1 || e.ReadWhole != 4<<20 || len(e.Layers) != 3 {
		t.Errorf("%+v", e)
	}
	var b bytes.Buffer
	if err := e.print(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Lazy:      1 of 3 layers; 4.19 MB compressed", "\nTo have aaaaaaaaaaaa, bbbbbbbbbbbb lazy: peel index push r"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, &b)
		}
	}
}

func TestExplainedMount(t *testing.T) {
	t.Parallel()
	e := fs.Explanation{
		Status: fs.Status{
			Record:   fs.Record{Mountpoint: "/mnt/a", Reference: "docker.io/library/a:1", Digest: "sha256:0123456789abcdef", Since: time.Now().Add(-3 * time.Hour)},
			Requests: 12, BytesFetched: 3_000_000, BytesPresent: 2_000_000, BytesTotal: 8_000_000,
		},
		Activity: fs.Activity{
			Reads:         fs.ReadsByOrigin{Store: layer.Count{Count: 4, Bytes: 1000, Waited: 8 * time.Millisecond}, Network: layer.Count{Count: 2, Bytes: 5000, Waited: 3 * time.Second}},
			RangeRequests: 9, DemandedBytes: 2_000_000, GuessedBytes: 300_000, PrefetchedBytes: 100_000, UnusedBytes: 100_000, TouchedBytes: 2_300_000, ReusedBytes: 7000,
		},
		Retries: 1, Hedges: 2, HedgesWon: 1,
		Fill: []fs.FillLayer{
			{Digest: "sha256:aa", State: fs.FillDone, Done: 1_000_000, Total: 1_000_000, Proved: true},
			{Digest: "sha256:bb", State: fs.FillFetching, Done: 500_000, Total: 2_000_000},
			{Digest: "sha256:cc", State: fs.FillFailed, Total: 1_000_000, Error: "no such luck"},
			{Digest: "sha256:dd", State: fs.FillWaiting, Total: 1_000_000},
		},
		Links:   []fs.LinkEstimate{{Host: "a.example", RoundTrip: 40 * time.Millisecond, Bandwidth: 12_500_000, Requests: 12, Hedges: 2}, {Host: "b.example"}},
		Slowest: []fs.ExplainedRead{{Took: 400 * time.Millisecond, Path: "/usr/bin/x", Off: 4096, Size: 8192, From: "network"}, {Took: 2 * time.Second, Layer: "sha256:abcdef", Addr: 77, Size: 1, From: "store"}},
	}
	var b bytes.Buffer
	if err := printMount(&b, &e); err != nil {
		t.Fatal(err)
	}
	golden(t, "explain", b.String())
}

func TestSeconds(t *testing.T) {
	t.Parallel()
	for want, d := range map[string]time.Duration{
		"0 µs": 0, "1.5 µs": 1500, "12.3 ms": 12_345 * time.Microsecond, "1.23 s": 1234 * time.Millisecond, "2m5s": 125 * time.Second,
	} {
		if got := seconds(d); got != want {
			t.Errorf("%d: %s, want %s", d, got, want)
		}
	}
}

func TestOpenTrace(t *testing.T) {
	t.Parallel()
	dir, mnt := t.TempDir(), t.TempDir()
	old, pipe, link := filepath.Join(dir, "old"), filepath.Join(dir, "pipe"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(old, []byte("what was here before"), 0o600), syscall.Mkfifo(pipe, 0o600), os.Symlink(mnt, link)); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ name, file, err string }{
		{name: "new", file: filepath.Join(dir, "new")},
		{name: "old", file: old},
		{name: "none", file: ""},
		{name: "no folder", file: filepath.Join(dir, "no", "file"), err: "no such file or directory"},
		{name: "folder", file: dir, err: "is a directory"},
		{name: "pipe", file: pipe, err: "no such device"},
		{name: "device", file: "/dev/null", err: "not a regular file"},
		{name: "hidden", file: filepath.Join(mnt, "trace"), err: "the mount would hide it"},
		{name: "hidden behind a link", file: filepath.Join(link, "trace"), err: "the mount would hide it"},
	} {
		f, err := (&tuning{trace: tc.file}).openTrace(mnt)
		if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		if w := f.writer(); tc.err == "" && tc.file != "" {
			if _, err := w.Write([]byte("line\n")); err != nil {
				t.Errorf("%s: %v", tc.name, err)
			}
			if got, err := os.ReadFile(tc.file); err != nil || string(got) != "line\n" {
				t.Errorf("%s: %q, %v", tc.name, got, err)
			}
		} else if w != nil {
			t.Errorf("%s: a writer", tc.name)
		}
		if err := f.Close(); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
	if _, err := os.Stat(filepath.Join(mnt, "trace")); err == nil {
		t.Error("a file was made where none may be")
	}
}
