//go:build linux

package cold

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// The measures of the chart, pixels.
const (
	chartWidth = 1000
	chartTop   = 108 // above the bars: title, key
	panelLabel = 170 // for the names beside the bars
	panelGap   = 24
	barHeight  = 13
	barStep    = 15
	groupHead  = 24
	groupGap   = 10
	chartFoot  = 56
	labelWidth = 28 // of the figure after a bar
)

// A bar is a run of the chart.
type bar struct {
	way     string
	profile bool
}

// bars are what each workload shows, from the top.
func bars() (out []bar) {
	for _, f := range forms() {
		out = append(out, bar{f.name, false})
		if f.lazy {
			out = append(out, bar{f.name, true})
		}
	}
	return append(out, bar{ctr, false}, bar{podman, false})
}

// color tells peel with nothing known, with a profile, and the others apart.
func (b bar) color() string {
	switch {
	case b.way == ctr || b.way == podman:
		return "#9aa0a6"
	case b.profile:
		return "#1a7f6b"
	}
	return "#5aa9e6"
}

// chart draws the totals of all workloads, a panel a line, as SVG.
func (r *results) chart() string {
	var panels []line
	for _, l := range lines() {
		if r.any(l.name) {
			panels = append(panels, l)
		}
	}
	names := workloadOrder(r)
	group := groupHead + barStep*len(bars()) + groupGap
	height := chartTop + group*len(names) + chartFoot
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="11" fill="#202124">`+"\n",
		chartWidth, height, chartWidth, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", chartWidth, height)
	text(&b, 16, 26, `font-size="17" font-weight="bold"`, "From nothing to the end of a container's work")
	text(&b, 16, 44, `fill="#5f6368"`, "seconds from the beginning of the mount or the pull; nothing of the image is on the machine; shorter is better")
	key(&b)
	if len(panels) == 0 {
		return b.String() + "</svg>\n"
	}
	width := (chartWidth - 16*2 - panelGap*(len(panels)-1)) / len(panels)
	for i, l := range panels {
		r.panel(&b, l, names, box{16 + i*(width+panelGap), chartTop, width, group * len(names)})
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// box is a part of the chart.
type box struct{ x, y, w, h int }

func key(b *strings.Builder) {
	x := 16
	for _, k := range []struct{ color, name string }{
		{"#5aa9e6", "peel, nothing known"}, {"#1a7f6b", "peel, with a profile"}, {"#9aa0a6", "pulled whole"},
	} {
		fmt.Fprintf(b, `<rect x="%d" y="56" width="12" height="12" fill="%s"/>`+"\n", x, k.color)
		text(b, x+17, 66, "", k.name)
		x += 150
	}
	fmt.Fprintf(b, `<line x1="%d" y1="54" x2="%d" y2="70" stroke="#d93025" stroke-width="2"/>`+"\n", x+5, x+5)
	text(b, x+14, 66, "", "L = 4 round trips + bytes touched ÷ bandwidth + the same on a local disk")
}

func text(b *strings.Builder, x, y int, attributes, s string) {
	fmt.Fprintf(b, `<text x="%d" y="%d" %s>%s</text>`+"\n", x, y, attributes, html.EscapeString(s))
}

// panel draws all workloads over one line.
func (r *results) panel(b *strings.Builder, l line, names []string, at box) {
	most := 0.0
	for _, o := range r.Runs {
		if o.Line == l.name && o.Way != whole && o.Way != ctrWhole {
			most = max(most, o.Total)
		}
	}
	step := tick(most)
	most = math.Ceil(most/step) * step
	plot := box{at.x + panelLabel, at.y, at.w - panelLabel - 34, at.h}
	scale := float64(plot.w) / most
	text(b, at.x, at.y-8, `font-size="13" font-weight="bold"`, fmt.Sprintf("%s: %v, %d Mbit/s", strings.ToUpper(l.name), l.Delay, l.BytesPerSecond*8/1e6))
	for v := 0.0; v <= most+step/2; v += step {
		x := plot.x + int(v*scale)
		fmt.Fprintf(b, `<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="#dadce0"/>`+"\n", x, plot.y, x, plot.y+plot.h)
		text(b, x, plot.y+plot.h+14, `text-anchor="middle" fill="#5f6368"`, fmt.Sprintf("%g", v))
	}
	text(b, plot.x+plot.w/2, plot.y+plot.h+30, `text-anchor="middle" fill="#5f6368"`, "seconds")
	y := at.y
	for _, w := range names {
		r.group(b, l, w, box{at.x, y, plot.x, 0}, scale)
		y += groupHead + barStep*len(bars()) + groupGap
	}
}

// group draws the bars of one workload: labels from at.x, bars from at.w.
func (r *results) group(b *strings.Builder, l line, w string, at box, scale float64) {
	text(b, at.x, at.y+17, `font-weight="bold"`, w)
	y := at.y + groupHead
	for _, one := range bars() {
		o := r.find(w, l.name, one.way, one.profile)
		text(b, at.w-6, y+barHeight-3, `text-anchor="end"`, wayName(&result{Way: one.way, Profile: one.profile}))
		if o == nil {
			text(b, at.w+4, y+barHeight-3, `fill="#5f6368"`, "not measured")
			y += barStep
			continue
		}
		length := max(1, int(o.Total*scale))
		fmt.Fprintf(b, `<rect x="%d" y="%d" width="%d" height="%d" fill="%s"/>`+"\n", at.w, y, length, barHeight, one.color())
		label := at.w + length + 4
		if limit := r.limit(l, w, one.way); limit > 0 {
			x := at.w + int(limit*scale)
			fmt.Fprintf(b, `<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="#d93025" stroke-width="2"/>`+"\n", x, y-1, x, y+barHeight+1)
			if x >= label-4 && x < label+labelWidth {
				label = x + 4
			}
		}
		text(b, label, y+barHeight-3, "", fmt.Sprintf("%.1f", o.Total))
		y += barStep
	}
}

// tick is a round distance between the lines of a scale that ends at most.
func tick(most float64) float64 {
	if most <= 0 {
		return 1
	}
	unit := math.Pow(10, math.Floor(math.Log10(most)))
	for _, k := range []float64{0.1, 0.2, 0.5, 1} {
		if most/(unit*k) <= 7 {
			return unit * k
		}
	}
	return unit * 2
}
