package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/peelfs/peel/manifest"
)

type layersOptions struct {
	*app
	platform string
	json     bool
}

func (a *app) layersCommand() *cobra.Command {
	o := &layersOptions{app: a}
	cmd := &cobra.Command{
		Use:   "layers [flags] IMAGE",
		Short: "List an image's layers and history, base first",
		Long: `List an image's layers and history, base first.

Only documents are read: layers need not be there. The digest of a layer's tar,
its diff ID, is in no document of a manifest of Docker schema 1, or of an
artifact; see peel inspect.

The registry is asked, even after peel pull. What works without it is the list of
an image that peel pull --destination DIR has kept: peel layers oci:DIR:TAG.`,
		Args: takes(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	cmd.Flags().StringVar(&o.platform, "platform", "", "`os/arch[/variant]` of the image (default linux on this processor)")
	cmd.Flags().BoolVar(&o.json, "json", false, "an object for programs, with digests in full")
	return cmd
}

// layerList is what layers tells of an image.
type layerList struct {
	Reference string         `json:"reference"`
	Digest    digest.Digest  `json:"digest"` // of the platform's manifest
	MediaType string         `json:"media_type"`
	ID        digest.Digest  `json:"id,omitempty"` // of the configuration, if the registry has one
	Platform  string         `json:"platform"`
	Schema1   bool           `json:"schema1,omitempty"`
	Artifact  bool           `json:"artifact,omitempty"`
	Size      int64          `json:"size"`    // of all layers, bytes
	Layers    []listedLayer  `json:"layers"`  // base first
	History   []historyEntry `json:"history"` // oldest first, also of what made no layer
}

type listedLayer struct {
	Number    int           `json:"number"` // from 1
	Digest    digest.Digest `json:"digest"`
	DiffID    digest.Digest `json:"diff_id,omitempty"`
	V1ID      string        `json:"v1_id,omitempty"`
	Size      int64         `json:"size"`
	MediaType string        `json:"media_type"`
	File      string        `json:"file,omitempty"` // that the layer is, of an artifact
	URLs      []string      `json:"urls,omitempty"`
	CreatedBy string        `json:"created_by,omitempty"`
}

type historyEntry struct {
	Layer     int        `json:"layer,omitempty"` // its number; 0 if it made none, or if that is not certain
	Created   *time.Time `json:"created,omitempty"`
	CreatedBy string     `json:"created_by,omitempty"`
	Author    string     `json:"author,omitempty"`
	Comment   string     `json:"comment,omitempty"`
	Empty     bool       `json:"empty,omitempty"` // it made no layer
}

func (o *layersOptions) run(ctx context.Context, arg string) (err error) {
	ref, err := manifest.ParseReference(arg)
	if err != nil {
		return err
	}
	platform := manifest.DefaultPlatform()
	if o.platform != "" {
		if platform, err = manifest.ParsePlatform(o.platform); err != nil {
			return err
		}
	}
	log, err := o.logger(o.err, logrus.WarnLevel)
	if err != nil {
		return err
	}
	from, err := o.source(ctx, ref, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	img, err := manifest.Resolve(ctx, from, ref, platform)
	if err != nil {
		return err
	}
	config, err := manifest.LoadConfig(ctx, from, img)
	if err != nil {
		return err
	}
	list := listLayers(img, config)
	if o.json {
		return writeJSON(o.out, list)
	}
	return list.print(o.out)
}

func listLayers(img *manifest.Image, config *manifest.Config) *layerList {
	l := &layerList{
		Reference: img.Reference.String(), Digest: img.Desc.Digest, MediaType: img.Desc.MediaType,
		ID: img.Manifest.Config.Digest, Platform: platforms.FormatAll(config.Platform),
		Schema1: img.Schema1, Artifact: img.Artifact, Layers: []listedLayer{}, History: []historyEntry{},
	}
	for i, d := range img.Layers {
		layer := listedLayer{
			Number: i + 1, Digest: d.Digest, V1ID: img.V1ID(i), Size: d.Size, MediaType: d.MediaType,
			File: img.FileName(i), URLs: d.URLs,
		}
		if !img.DiffIDsUnknown() {
			layer.DiffID = config.DiffIDs()[i]
		}
		l.Layers = append(l.Layers, layer)
		l.Size += d.Size
	}
	l.addHistory(config)
	return l
}

// addHistory tells which entry made which layer, if there is one for each.
func (l *layerList) addHistory(config *manifest.Config) {
	made := 0
	for _, h := range config.History {
		if !h.EmptyLayer {
			made++
		}
	}
	number := 0
	for _, h := range config.History {
		e := historyEntry{
			Created: h.Created, CreatedBy: h.CreatedBy, Author: h.Author, Comment: h.Comment, Empty: h.EmptyLayer,
		}
		if !h.EmptyLayer && made == len(l.Layers) {
			number++
			e.Layer, l.Layers[number-1].CreatedBy = number, h.CreatedBy
		}
		l.History = append(l.History, e)
	}
}

// print writes the list for people, a line for each layer or entry of history.
func (l *layerList) print(w io.Writer) error {
	fmt.Fprintf(w, "Image:   %s\nDigest:  %s (%s)\n", l.Reference, l.Digest, l.what())
	if l.ID != "" && !l.Artifact {
		fmt.Fprintf(w, "ID:      %s\n", l.ID)
	}
	fmt.Fprintf(w, "Layers:  %d, %s\n\n", len(l.Layers), humanSize(l.Size))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	id, story := "DIFF ID", "CREATED BY"
	if l.Schema1 {
		id = "V1 ID"
	}
	if l.Artifact {
		story = "FILE"
	}
	fmt.Fprintf(t, "#\tDIGEST\t%s\tSIZE\tMEDIA TYPE\t%s\n", id, story)
	told := 0
	for _, h := range l.History {
		if h.Layer == 0 {
			fmt.Fprintf(t, "-\t\t\t\t\t%s\n", h.story())
			continue
		}
		l.line(t, l.Layers[h.Layer-1], h.story())
		told++
	}
	for _, layer := range l.Layers[told:] { // all or none
		l.line(t, layer, oneLine(layer.File))
	}
	return t.Flush()
}

func (l *layerList) what() string {
	switch {
	case l.Schema1:
		return l.Platform + ", manifest of Docker schema 1"
	case l.Artifact:
		return "artifact"
	}
	return l.Platform
}

func (l *layerList) line(w io.Writer, layer listedLayer, story string) {
	id := shortDigest(layer.DiffID.String())
	if l.Schema1 {
		id = layer.V1ID[:min(len(layer.V1ID), 12)]
	}
	fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\n", layer.Number, shortDigest(layer.Digest.String()),
		cmp.Or(id, "-"), humanSize(layer.Size), oneLine(layer.MediaType), story)
}

// maxStory is how much of a command line people are shown, in characters.
const maxStory = 100

// story is how an entry came about, on one line.
func (h *historyEntry) story() string {
	s := []rune(oneLine(strings.Join(strings.Fields(cmp.Or(h.CreatedBy, h.Comment)), " ")))
	if len(s) > maxStory {
		return string(s[:maxStory-1]) + "…"
	}
	return string(s)
}
