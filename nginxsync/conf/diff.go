package conf

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

const diffContext = 3

// hunk is a run of old lines, from 0, that changes touch, and the new lines in their place.
type hunk struct {
	from, to int
	fresh    []string
}

// trim takes the lines off both ends that come out as they were, and reports whether any are left.
func (h *hunk) trim(old []string) bool {
	same := func(a, b string) bool {
		return strings.TrimSuffix(a, "\n") == strings.TrimSuffix(b, "\n")
	}
	for len(old) > 0 && len(h.fresh) > 0 && same(old[0], h.fresh[0]) {
		old, h.fresh = old[1:], h.fresh[1:]
		h.from++
	}
	for len(old) > 0 && len(h.fresh) > 0 && same(old[len(old)-1], h.fresh[len(h.fresh)-1]) {
		old, h.fresh = old[:len(old)-1], h.fresh[:len(h.fresh)-1]
		h.to--
	}
	return len(old)+len(h.fresh) > 0
}

// Diff is the changes as a unified diff, files in the order of their names. It is made from the
// splices and takes time in proportion to the files. Changes that overlap are left out: Files
// reports them.
func (e *Edit) Diff() string {
	var b strings.Builder
	for _, f := range e.tree.Files() {
		if ordered := e.ordered(f); len(ordered) > 0 {
			diffFile(&b, f, ordered)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.added)) {
		b.WriteString(DiffAdded(name, e.added[name]))
	}
	return b.String()
}

// DiffAdded is the unified diff of a new file.
func DiffAdded(name, text string) string {
	lines := splitLines(text)
	var b strings.Builder
	fmt.Fprintf(&b, "--- /dev/null\n+++ b/%s\n@@ -0,0 +1,%d @@\n", name, len(lines))
	writeLines(&b, "+", lines)
	return b.String()
}

func diffFile(b *strings.Builder, f *File, ordered []splice) {
	lines := splitLines(f.Text)
	hunks := f.hunks(ordered)
	if len(hunks) == 0 {
		return
	}
	fmt.Fprintf(b, "--- a/%s\n+++ b/%s\n", f.Name, f.Name)
	shift := 0
	for len(hunks) > 0 {
		n := 1
		for n < len(hunks) && hunks[n].from-hunks[n-1].to <= 2*diffContext {
			n++
		}
		group := hunks[:n]
		hunks = hunks[n:]
		from, to := max(group[0].from-diffContext, 0), min(group[n-1].to+diffContext, len(lines))
		var body strings.Builder
		at, added := from, 0
		for _, h := range group {
			writeLines(&body, " ", lines[at:h.from])
			writeLines(&body, "-", lines[h.from:h.to])
			writeLines(&body, "+", h.fresh)
			added += len(h.fresh) - (h.to - h.from)
			at = h.to
		}
		writeLines(&body, " ", lines[at:to])
		fmt.Fprintf(b, "@@ -%d,%d +%d,%d @@\n%s", from+1, to-from, from+shift+1, to-from+added,
			body.String())
		shift += added
	}
}

// hunks widens the splices to whole lines and joins those that share one. Lines that come out as
// they were are left out.
func (f *File) hunks(ordered []splice) []hunk {
	f.pos(0)
	count := len(f.lines)
	if f.Text == "" || strings.HasSuffix(f.Text, "\n") {
		count--
	}
	var hunks []hunk
	for i := 0; i < len(ordered); {
		from := f.pos(int(ordered[i].start)).Line - 1
		at := int(f.lines[from])
		var text strings.Builder
		to := from
		for first := true; i < len(ordered); first = false {
			s := ordered[i]
			start, stop := int(s.start), int(s.end)
			if !first && start >= f.lineEnd(to) {
				break
			}
			if start < at {
				i++
				continue
			}
			text.WriteString(f.Text[at:start])
			text.WriteString(s.text)
			at = stop
			last := at
			if stop > start && f.Text[stop-1] == '\n' {
				last-- // ends with its line, the next one is not touched
			}
			to = max(to, f.pos(last).Line-1)
			i++
		}
		end := f.lineEnd(to)
		text.WriteString(f.Text[min(at, end):end])
		if h := (hunk{from: from, to: min(to+1, count), fresh: splitLines(text.String())}); h.trim(
			splitLines(f.Text[f.lines[from]:end])) {
			hunks = append(hunks, h)
		}
	}
	return hunks
}

// lineEnd is the offset after the line, its line break included.
func (f *File) lineEnd(line int) int {
	if line+1 < len(f.lines) {
		return int(f.lines[line+1])
	}
	return len(f.Text)
}

func splitLines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.SplitAfter(strings.TrimSuffix(text, "\n"), "\n")
}

func writeLines(b *strings.Builder, prefix string, lines []string) {
	for _, line := range lines {
		b.WriteString(prefix)
		b.WriteString(strings.TrimSuffix(line, "\n"))
		b.WriteByte('\n')
	}
}
