package main

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"strings"
	"sync/atomic"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peelfs/peel/layer"
	"github.com/peelfs/peel/layer/convert"
)

// convertLayers is how many layers are converted at a time. Each takes a few
// dozen MiB of memory, and the time of a processor.
const convertLayers = 4

// Prefixes of the annotations that tell where a layer's table of contents is,
// none of which is true of another form of the layer.
const (
	podmanAnnotations = "io.github.containers.zstd-chunked."
	earlyAnnotations  = "io.containers.zstd-chunked."
)

// convertedLayer is a layer that is converted once, whatever number of images
// has it.
type convertedLayer struct {
	done   chan struct{} // closed when what follows is there
	desc   ocispec.Descriptor
	diffID digest.Digest // of desc
	was    digest.Digest // of the original; empty if it was not read
	err    error
}

// layer converts the layer that d describes and whose tar is to have the
// digest want. It returns the new layer's descriptor and its tar's digest.
func (c *conversion) layer(ctx context.Context, d ocispec.Descriptor, want digest.Digest) (ocispec.Descriptor, digest.Digest, error) {
	c.mu.Lock()
	l, known := c.layers[d.Digest]
	if !known {
		l = &convertedLayer{done: make(chan struct{})}
		c.layers[d.Digest] = l
	}
	c.mu.Unlock()
	if !known {
		l.err = c.limited(ctx, func() error { return c.convert(ctx, l, d, want) })
		close(l.done)
	}
	select {
	case <-l.done:
	case <-ctx.Done():
		return d, "", context.Cause(ctx)
	}
	switch {
	case l.err != nil:
		return d, "", l.err
	case l.was == "":
		return l.desc, want, nil
	case l.was != want:
		return d, "", fmt.Errorf("layer %s: %w: its tar has digest %s, the configuration says %s", d.Digest, layer.ErrVerify, l.was, want)
	}
	return l.desc, l.diffID, nil
}

// limited waits until one more layer may be converted.
func (c *conversion) limited(ctx context.Context, do func() error) error {
	if err := c.slots.Acquire(ctx, 1); err != nil {
		return err
	}
	defer c.slots.Release(1)
	return do()
}

func (c *conversion) convert(ctx context.Context, l *convertedLayer, d ocispec.Descriptor, want digest.Digest) error {
	l.desc = d
	if foreign(d) {
		return nil
	}
	l.desc.MediaType = ociLayerType(d.MediaType)
	same, err := c.already(ctx, d)
	if err != nil {
		return err
	}
	if same {
		return c.copyBlob(ctx, d)
	}
	err = c.rewrite(ctx, l, d, want)
	if errors.Is(err, convert.ErrUnrepresentable) {
		c.log.Warnf("%v; the layer stays as it is", err)
		l.desc = d
		l.desc.MediaType, l.was, l.diffID = ociLayerType(d.MediaType), "", ""
		return c.copyBlob(ctx, d)
	}
	return err
}

// foreign recognises layers that only their makers may distribute.
func foreign(d ocispec.Descriptor) bool {
	return strings.Contains(d.MediaType, ".nondistributable.") || strings.Contains(d.MediaType, ".foreign.")
}

// ociLayerType is what OCI calls the type of one of Docker's layers.
func ociLayerType(mediaType string) string {
	rest, ok := strings.CutPrefix(mediaType, "application/vnd.docker.image.rootfs.diff.tar")
	if !ok {
		return mediaType
	}
	return ocispec.MediaTypeImageLayer + strings.Replace(rest, ".", "+", 1)
}

// already reports whether the layer has a table of contents of the format,
// and there is no reason to write another.
func (c *conversion) already(ctx context.Context, d ocispec.Descriptor) (bool, error) {
	mark, format := estargz.TOCJSONDigestAnnotation, layer.FormatEstargz
	if c.job.layers.Format == convert.ZstdChunked {
		mark, format = podmanAnnotations+"manifest-checksum", layer.FormatZstdChunked
	}
	if d.Annotations[mark] == "" || len(c.job.layers.Profile) > 0 {
		return false, nil
	}
	x, err := layer.ReadIndex(ctx, c.from.Layer(c.repo, d), d)
	switch {
	case err == nil:
		return x.Info.Format == format, nil
	case errors.Is(err, layer.ErrPlain), errors.Is(err, layer.ErrMalformed), errors.Is(err, layer.ErrVerify):
		return false, nil // converting it shows whether the layer itself is right
	}
	return false, err
}

// rewrite reads the layer, writes the new one, and keeps it if the digests of
// blob and tar are right.
func (c *conversion) rewrite(ctx context.Context, l *convertedLayer, d ocispec.Descriptor, want digest.Digest) error {
	in, err := c.openBlob(ctx, d)
	if err != nil {
		return err
	}
	defer in.Close()
	err = c.write(ctx, func(w io.Writer) (digest.Digest, error) {
		r, was, err := c.transform(ctx, in, w)
		// Before the error: wrong bytes are likely to be why.
		if wrong := in.verify(); wrong != nil {
			return "", wrong
		}
		if err != nil {
			return "", err
		}
		if was != want {
			return "", fmt.Errorf("%w: its tar has digest %s, the configuration says %s", layer.ErrVerify, was, want)
		}
		l.was, l.diffID = was, r.DiffID
		l.desc = describeConverted(d, r)
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, path := range r.Prioritized {
			c.found[path] = true
		}
		return r.Desc.Digest, nil
	})
	if err != nil {
		return fmt.Errorf("layer %s: %w", d.Digest, err)
	}
	return nil
}

// transform converts what in holds and returns the digest of its tar.
func (c *conversion) transform(ctx context.Context, in io.Reader, w io.Writer) (convert.Result, digest.Digest, error) {
	tar, err := convert.Uncompress(in)
	if err != nil {
		return convert.Result{}, "", err
	}
	defer tar.Close()
	sum := digest.SHA256.Digester()
	r, err := convert.Layer(ctx, io.TeeReader(tar, sum.Hash()), w, c.job.layers)
	return r, sum.Digest(), err
}

// describeConverted is the descriptor of a converted layer: what d says, but
// for what is true of the old form only.
func describeConverted(d ocispec.Descriptor, r convert.Result) ocispec.Descriptor {
	d.MediaType, d.Digest, d.Size = r.Desc.MediaType, r.Desc.Digest, r.Desc.Size
	d.URLs, d.Data = nil, nil
	d.Annotations = maps.Clone(d.Annotations)
	maps.DeleteFunc(d.Annotations, func(key, _ string) bool {
		return key == estargz.TOCJSONDigestAnnotation || key == estargz.StoreUncompressedSizeAnnotation ||
			strings.HasPrefix(key, podmanAnnotations) || strings.HasPrefix(key, earlyAnnotations)
	})
	if d.Annotations == nil {
		d.Annotations = map[string]string{}
	}
	maps.Copy(d.Annotations, r.Desc.Annotations)
	return d
}

// copyBlob takes a blob over as it is.
func (c *conversion) copyBlob(ctx context.Context, d ocispec.Descriptor) error {
	if there, err := c.sink.HasBlob(ctx, d); err != nil || there {
		return err
	}
	if m, ok := c.sink.(blobMounter); ok {
		if there, err := m.Mount(ctx, d); err != nil || there {
			return err
		}
	}
	in, err := c.openBlob(ctx, d)
	if err != nil {
		return err
	}
	defer in.Close()
	return c.write(ctx, func(w io.Writer) (digest.Digest, error) {
		if _, err := io.Copy(w, in); err != nil {
			return "", err
		}
		return d.Digest, in.verify()
	})
}

// blobReader reads a blob of the original, counts and digests.
type blobReader struct {
	*readAhead
	cancel func() // ends reads
	desc   ocispec.Descriptor
	sum    hash.Hash
	done   *atomic.Int64
	err    error // of reading
}

func (c *conversion) openBlob(ctx context.Context, d ocispec.Descriptor) (*blobReader, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("layer %s: %w: %w", d.Digest, layer.ErrMalformed, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	body, err := c.from.Layer(c.repo, d).ReadRange(ctx, 0, d.Size)
	if err != nil {
		cancel()
		return nil, err
	}
	return &blobReader{
		readAhead: newReadAhead(body), cancel: cancel,
		desc: d, sum: d.Digest.Algorithm().Hash(), done: c.progress.start(d),
	}, nil
}

func (b *blobReader) Read(p []byte) (int, error) {
	n, err := b.readAhead.Read(p)
	b.sum.Write(p[:n])
	b.done.Add(int64(n))
	if err != nil && !errors.Is(err, io.EOF) {
		b.err = err
	}
	return n, err
}

// Close gives up what was not read.
func (b *blobReader) Close() error {
	b.cancel()
	return b.readAhead.Close()
}

// verify reads what is left of the blob and checks its digest; nil if that
// cannot be read.
func (b *blobReader) verify() error {
	if _, err := io.Copy(io.Discard, b); err != nil || b.err != nil {
		return nil //nolint:nilerr // whoever reads the blob has got the error too
	}
	if got := digest.NewDigest(b.desc.Digest.Algorithm(), b.sum); got != b.desc.Digest {
		return fmt.Errorf("%w: expected %s, got %s", layer.ErrVerify, b.desc.Digest, got)
	}
	return nil
}
