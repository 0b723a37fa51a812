package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/peelfs/peel/layer"
)

type inspectOptions struct {
	*app
	imageFlags
	json bool
}

func (a *app) inspectCommand() *cobra.Command {
	o := &inspectOptions{app: a}
	cmd := &cobra.Command{
		Use:   "inspect [flags] IMAGE",
		Short: "Show how an image is read: layer by layer, lazily or not, and why",
		Args:  takes(cobra.ExactArgs(1)),
		RunE:  func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	o.imageFlags.add(cmd.Flags())
	cmd.Flags().BoolVar(&o.json, "json", false, "an object for programs")
	return cmd
}

// inspection is what inspect tells of an image.
type inspection struct {
	Reference    string            `json:"reference"`
	Digest       string            `json:"digest"`       // of the platform's manifest
	IndexDigest  string            `json:"index_digest"` // of what the reference names; the same without an index
	MediaType    string            `json:"media_type"`
	Schema1      bool              `json:"schema1,omitempty"`       // the manifest is of Docker schema 1
	ArtifactType string            `json:"artifact_type,omitempty"` // it is no container image
	ID           string            `json:"id,omitempty"`            // digest of its configuration
	Platform     string            `json:"platform"`
	Created      *time.Time        `json:"created,omitempty"`
	Resolved     time.Time         `json:"resolved"`
	Transport    string            `json:"transport,omitempty"` // of an image on this machine
	Names        int               `json:"names"`               // paths of the image, all layers merged
	FileBytes    int64             `json:"file_bytes"`          // of regular files
	Compressed   int64             `json:"compressed"`          // bytes of all layers in the registry
	BytesTotal   int64             `json:"bytes_total"`         // bytes of all layers' address spaces
	BytesPresent int64             `json:"bytes_present"`       // of these, in the cache
	Layers       []layerInspection `json:"layers"`              // bottom first
}

type layerInspection struct {
	Digest       string `json:"digest"`
	DiffID       string `json:"diff_id"`
	MediaType    string `json:"media_type"`
	Format       string `json:"format"`
	Access       string `json:"access"`                 // "lazy"; "streamed": read whole, once; "resident": its names are known, the first read fetches all
	Reason       string `json:"reason,omitempty"`       // why it was streamed
	Resident     string `json:"resident,omitempty"`     // why its spans cannot be fetched by range
	Trust        string `json:"trust"`                  // what vouches for the index: "claimed" or "proved"
	Origin       string `json:"origin,omitempty"`       // what the index was made from, if not from the whole layer
	TOC          string `json:"toc_digest,omitempty"`   // of the table of contents in the layer
	Index        string `json:"index_digest,omitempty"` // of the index that somebody has made of the layer
	Names        int    `json:"names"`
	Spans        int    `json:"spans"`
	Compressed   int64  `json:"compressed"`
	BytesTotal   int64  `json:"bytes_total"`
	BytesPresent int64  `json:"bytes_present"`
}

func inspect(s *session) inspection {
	m := s.image.Manifest
	in := inspection{
		Reference: m.Reference.String(), Digest: m.Desc.Digest.String(), IndexDigest: m.Top.Digest.String(),
		MediaType: m.Desc.MediaType, Schema1: m.Schema1, Transport: m.Reference.Transport(), Platform: platforms.FormatAll(s.image.Config.Platform),
		Created: s.image.Config.Created, Resolved: s.image.Resolved,
		Names: len(s.image.Tree.Entries), FileBytes: s.image.Tree.Size(),
	}
	if m.Artifact {
		in.ArtifactType = cmp.Or(m.Manifest.ArtifactType, m.Manifest.Config.MediaType)
	} else {
		in.ID = m.Manifest.Config.Digest.String()
	}
	for i, l := range s.image.Layers() {
		li := inspectLayer(l, m.Layers[i])
		li.DiffID = s.image.Config.RootFS.DiffIDs[i].String()
		in.Compressed += li.Compressed
		in.BytesTotal += li.BytesTotal
		in.BytesPresent += li.BytesPresent
		in.Layers = append(in.Layers, li)
	}
	return in
}

func inspectLayer(l *layer.Layer, d ocispec.Descriptor) layerInspection {
	x := l.Index()
	li := layerInspection{
		Digest: d.Digest.String(), MediaType: d.MediaType, Format: x.Info.Format.String(), Access: "lazy",
		Reason: x.Reason(), Resident: x.Resident(), Trust: x.Info.Trust.String(), Origin: x.Origin(), Names: len(x.Entries),
		Spans: len(x.Spans), Compressed: d.Size, BytesTotal: x.Info.AddrSize, BytesPresent: l.Present(),
	}
	if _, ok := layer.TOCDigest(d); ok {
		li.TOC = x.Claim().String()
	} else {
		li.Index = x.Claim().String()
	}
	switch {
	case li.Reason != "":
		li.Access = "streamed"
	case x.Resident() != "":
		li.Access = "resident"
	}
	return li
}

func (o *inspectOptions) run(ctx context.Context, arg string) error {
	r, err := o.request(arg)
	if err != nil {
		return err
	}
	return o.browse(ctx, r, func(s *session) error {
		in := inspect(s)
		if o.json {
			return writeJSON(o.out, in)
		}
		return in.print(o.out)
	})
}

// print writes the inspection for people.
func (in *inspection) print(w io.Writer) error {
	fmt.Fprintf(w, "Image:     %s\n", in.Reference)
	what := in.Platform
	switch {
	case in.Schema1:
		what += ", manifest of Docker schema 1"
	case in.ArtifactType != "":
		what = "artifact of type " + oneLine(in.ArtifactType)
	}
	fmt.Fprintf(w, "Digest:    %s (%s)\n", in.Digest, what)
	if in.ID != "" {
		fmt.Fprintf(w, "ID:        %s\n", in.ID)
	}
	if in.Transport == "" {
		fmt.Fprintf(w, "Resolved:  %s ago\n", ago(in.Resolved))
	}
	fmt.Fprintf(w, "Contents:  %d names, %s in files\n", in.Names, humanSize(in.FileBytes))
	fmt.Fprintf(w, "Size:      %s compressed, %s uncompressed, of which %s are in the cache (%s)\n\n",
		humanSize(in.Compressed), humanSize(in.BytesTotal), humanSize(in.BytesPresent), percent(in.BytesPresent, in.BytesTotal))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "LAYER\tFORMAT\tACCESS\tTRUST\tNAMES\tSPANS\tCOMPRESSED\tSIZE\tPRESENT")
	for _, l := range in.Layers {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\t%s\n", shortDigest(l.Digest), l.Format, l.Access, l.Trust,
			l.Names, l.Spans, humanSize(l.Compressed), humanSize(l.BytesTotal), percent(l.BytesPresent, l.BytesTotal))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, l := range in.Layers {
		l.explain(w)
	}
	return nil
}

// explain tells why a layer is read as it is, unless its table of contents is
// all there is to tell of.
func (l *layerInspection) explain(w io.Writer) {
	if l.Reason != "" {
		fmt.Fprintf(w, "\n%s was read whole: %s\n", shortDigest(l.Digest), oneLine(l.Reason))
	}
	if l.Index != "" {
		fmt.Fprintf(w, "\n%s is read by an index, %s: %s\n", shortDigest(l.Digest), shortDigest(l.Index), oneLine(l.Origin))
	}
	if l.Resident != "" {
		fmt.Fprintf(w, "\n%s cannot be read by range: %s\n", shortDigest(l.Digest), oneLine(l.Resident))
	}
}

func percent(part, whole int64) string {
	if whole == 0 {
		return "100 %"
	}
	return fmt.Sprintf("%.0f %%", 100*float64(part)/float64(whole))
}
