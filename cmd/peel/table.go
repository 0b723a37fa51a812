package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/docker/go-units"
)

// writeJSON writes v for programs.
func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// array writes a JSON array whose elements come one by one.
type array struct {
	w io.Writer
	n int
}

func (a *array) add(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	lead := ",\n  "
	if a.n == 0 {
		lead = "[\n  "
	}
	a.n++
	_, err = fmt.Fprintf(a.w, "%s%s", lead, data)
	return err
}

func (a *array) end() error {
	tail := "\n]\n"
	if a.n == 0 {
		tail = "[]\n"
	}
	_, err := io.WriteString(a.w, tail)
	return err
}

// humanSize is a number of bytes for people.
func humanSize(n int64) string {
	return units.CustomSize("%.3g %s", float64(n), 1000, []string{"B", "kB", "MB", "GB", "TB", "PB", "EB"})
}

// ago is how long something has been, for people.
func ago(t time.Time) string { return strings.ToLower(units.HumanDuration(time.Since(t))) }

// shortDigest is enough of a digest for people to tell it from others.
func shortDigest(d string) string {
	const digits = 12
	_, hex, _ := strings.Cut(d, ":")
	return hex[:min(len(hex), digits)]
}

// shown is a name from an image as it may be written to w: a terminal must not
// obey it.
func shown(name string, terminal bool) string { //nolint:revive // not a mode, but what the name is for
	if terminal && (!utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) })) {
		return strconv.Quote(name)
	}
	return name
}
