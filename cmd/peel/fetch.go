package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/peelfs/peel/manifest"
)

type fetchOptions struct {
	*app
	output    string
	mediaType string
	span      rangeFlag
}

const fetchHelp = `Write the original bytes of an object to standard output: what IMAGE names, or
the manifest, configuration, layer or other blob with DIGEST in its repository.

The digest is checked as the bytes arrive; if it does not match in the end, the
exit code is 5. Part of a blob (--range) cannot be checked. The digest of a signed
manifest of Docker schema 1 is over what is signed in it.

What is not found as a blob is asked for as a manifest, or the other way round if
the type that --media-type gives is one of manifests. Bytes that a terminal cannot
show are not written to one, unless -o - asks for it.`

func (a *app) fetchCommand() *cobra.Command {
	o := &fetchOptions{app: a}
	cmd := &cobra.Command{
		Use:   "fetch [flags] IMAGE [DIGEST]",
		Short: "Write an object of a registry as it is: manifest, configuration, layer, any blob",
		Long:  fetchHelp,
		Example: `  peel fetch alpine | jq .
  peel fetch -o layer.tar.gz alpine sha256:...
  peel fetch --range 1000:24 alpine sha256:... | xxd`,
		Args: takes(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args) },
	}
	f := cmd.Flags()
	f.StringVarP(&o.output, "output", "o", "", "`file` to write to; it is not there before all of it is; - for standard output")
	f.StringVar(&o.mediaType, "media-type", "", "`type` of the object, if it is known")
	f.Var(&o.span, "range", "`bytes` to fetch: FIRST-LAST as in HTTP (a LAST beyond the end is the end), FIRST- to the end, or OFFSET:LENGTH")
	return cmd
}

// rangeFlag is the bytes [off, off+n) on the command line, to the end if n is
// less than zero.
type rangeFlag struct {
	off, n    int64
	inclusive bool // FIRST-LAST, as HTTP has it
	text      string
}

func (r *rangeFlag) String() string { return r.text }
func (r *rangeFlag) Type() string   { return "bytes" }

func (r *rangeFlag) Set(s string) error {
	bad := fmt.Errorf("%q is none of FIRST-LAST, FIRST-, OFFSET:LENGTH", s)
	from, to, inclusive := strings.Cut(s, "-")
	if !inclusive {
		var ok bool
		if from, to, ok = strings.Cut(s, ":"); !ok {
			return bad
		}
	}
	off, err := strconv.ParseUint(from, 10, 62)
	if err != nil {
		return bad
	}
	n := int64(-1)
	if to != "" || !inclusive {
		last, err := strconv.ParseUint(to, 10, 62)
		if err != nil {
			return bad
		}
		if n = int64(last); inclusive {
			n += 1 - int64(off)
		}
		if n < 0 {
			return fmt.Errorf("%q ends before it begins", s)
		}
	}
	*r = rangeFlag{int64(off), n, inclusive && to != "", s}
	return nil
}

// objects fetches from one repository, as remote.Fetcher does.
type objects interface {
	Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error)
	FetchRange(ctx context.Context, d ocispec.Descriptor, off, n int64) (io.ReadCloser, error)
	Size(ctx context.Context, d ocispec.Descriptor) (int64, error)
}

// fetch returns the bytes of d that r means. A LAST beyond its end means the
// end (RFC 9110 section 14.1.2).
func (r rangeFlag) fetch(ctx context.Context, from objects, d ocispec.Descriptor) (io.ReadCloser, error) {
	size, err := from.Size(ctx, d)
	if err != nil {
		return nil, err
	}
	d.Size = size
	if r.off > size || r.inclusive && r.off == size {
		return nil, usagef("--range %s begins beyond the end: the object has %d bytes", r.text, size)
	}
	if r.inclusive && r.n > size-r.off {
		r.n = size - r.off
	}
	part, err := section(size, r.off, r.n)
	if err != nil {
		return nil, err
	}
	return from.FetchRange(ctx, d, part[0], part[1])
}

func (o *fetchOptions) run(ctx context.Context, args []string) error {
	return o.withSource(ctx, args[0], func(from source, ref manifest.Reference) (err error) {
		d, err := o.descriptor(ctx, from, ref, args[1:])
		if err != nil {
			return err
		}
		var fetcher objects = from.Registries().Fetcher(ref.Named())
		if ref.Transport() != "" {
			fetcher = localObjects{from, ref}
		}
		var body io.ReadCloser
		if o.span.text != "" {
			body, err = o.span.fetch(ctx, fetcher, d)
		} else {
			body, err = fetcher.Fetch(ctx, d)
		}
		if err != nil {
			return err
		}
		defer body.Close()
		return o.write(body)
	})
}

// descriptor is of the object to fetch: the size may not be known.
func (o *fetchOptions) descriptor(ctx context.Context, from source, ref manifest.Reference, args []string) (ocispec.Descriptor, error) {
	d := ocispec.Descriptor{MediaType: o.mediaType}
	if len(args) == 1 {
		var err error
		if d.Digest, err = digest.Parse(args[0]); err != nil {
			return d, withRemedy(usagef("digest %q: %w", args[0], err), "write it as sha256: and 64 digits")
		}
		return d, nil
	}
	if pinned, ok := ref.Digest(); ok && ref.Transport() == "" {
		d.Digest = pinned
		if d.MediaType == "" {
			d.MediaType = ocispec.MediaTypeImageManifest // that is what references name
		}
		return d, nil
	}
	d, _, err := from.Manifest(ctx, ref.Named())
	return d, err
}

func (o *fetchOptions) write(body io.Reader) error {
	switch {
	case o.output != "" && o.output != "-":
		return writeWhole(o.output, body)
	case o.output == "" && isTerminal(o.out):
		in := bufio.NewReaderSize(body, 4096)
		head, err := in.Peek(1024)
		if len(head) > 0 && !showable(head) {
			return withRemedy(usagef("the object is binary, and standard output a terminal"),
				"write it to a file with -o FILE, or to the terminal nevertheless with -o -")
		}
		if len(head) == 0 && !errors.Is(err, io.EOF) {
			return err
		}
		body = in
	}
	_, err := io.Copy(o.out, body)
	return err
}

// showable reports whether a terminal shows b, the beginning of an object, as
// it is.
func showable(b []byte) bool {
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 && len(b) >= utf8.UTFMax || r != utf8.RuneError && !unicode.IsPrint(r) && !unicode.IsSpace(r) {
			return false
		}
		b = b[n:]
	}
	return true
}

// writeWhole makes the file when all of its bytes are there and have proved
// right. What is there and no file, a device or a pipe, is written to.
func writeWhole(name string, body io.Reader) (err error) {
	if fi, err := os.Lstat(name); err == nil && !fi.Mode().IsRegular() {
		return writeInto(name, body)
	}
	temp := filepath.Join(filepath.Dir(name), "."+filepath.Base(name)+"."+rand.Text())
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666) // less the umask
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temp))
		}
	}()
	_, err = io.Copy(f, body)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(temp, name)
}

func writeInto(name string, body io.Reader) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, body)
	return errors.Join(err, f.Close())
}

// localObjects are those of an image on this machine.
type localObjects struct {
	from source
	ref  manifest.Reference
}

// Fetch returns an object, whole and verified as it is read.
func (l localObjects) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	whole, rc, err := l.open(ctx, d, 0, -1)
	if err != nil || whole {
		return rc, err
	}
	return &checked{rc, d.Digest.Algorithm().Digester(), d.Digest}, nil
}

// FetchRange returns part of an object.
func (l localObjects) FetchRange(ctx context.Context, d ocispec.Descriptor, off, n int64) (io.ReadCloser, error) {
	_, rc, err := l.open(ctx, d, off, n)
	return rc, err
}

// Size is the length of an object.
func (l localObjects) Size(ctx context.Context, d ocispec.Descriptor) (int64, error) {
	ref, err := at(l.ref, d.Digest)
	if err != nil {
		return 0, err
	}
	if _, raw, err := l.from.Manifest(ctx, ref); err == nil {
		return int64(len(raw)), nil
	}
	return l.from.BlobSize(ctx, ref, d.Digest)
}

// open returns the bytes [off, off+n) of an object, and whether it is a
// document that was verified.
func (l localObjects) open(ctx context.Context, d ocispec.Descriptor, off, n int64) (verified bool, rc io.ReadCloser, err error) {
	ref, err := at(l.ref, d.Digest)
	if err != nil {
		return false, nil, err
	}
	if _, raw, err := l.from.Manifest(ctx, ref); err == nil {
		part, err := section(int64(len(raw)), off, n)
		if err != nil {
			return false, nil, err
		}
		return true, io.NopCloser(io.NewSectionReader(bytes.NewReader(raw), part[0], part[1])), nil
	}
	if d.Size, err = l.from.BlobSize(ctx, ref, d.Digest); err != nil {
		return false, nil, err
	}
	part, err := section(d.Size, off, n)
	if err != nil {
		return false, nil, err
	}
	rc, err = l.from.Layer(ref, d).ReadRange(ctx, part[0], part[1])
	return false, rc, err
}

// section is offset and length of the bytes [off, off+n) of size.
func section(size, off, n int64) ([2]int64, error) {
	if off > size || n > size-off {
		return [2]int64{}, usagef("--range reaches beyond the %d bytes of the object", size)
	}
	if n < 0 {
		n = size - off
	}
	return [2]int64{off, n}, nil
}

// checked fails at its end if what was read has another digest than wanted.
type checked struct {
	io.ReadCloser
	digester digest.Digester
	want     digest.Digest
}

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.digester.Hash().Write(p[:n])
	if errors.Is(err, io.EOF) && c.digester.Digest() != c.want {
		err = fmt.Errorf("%w: bytes have digest %s, want %s", manifest.ErrVerify, c.digester.Digest(), c.want)
	}
	return n, err
}
