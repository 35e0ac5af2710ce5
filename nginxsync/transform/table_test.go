package transform

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Each row is complete, the rows are in order, and no name stands twice.
func TestTableOfDirectives(t *testing.T) {
	t.Parallel()
	var names []string
	for line := range strings.Lines(directivesTSV) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		require.GreaterOrEqual(t, len(fields), 3, line)
		require.Contains(t, []string{"nginx", "nginx-plus", "openresty", "tengine", "angie",
			"third-party"}, fields[1], line)
		require.NotEmpty(t, fields[2], line)
		for _, word := range strings.Fields(strings.Join(fields[3:min(4, len(fields))], " ")) {
			deed, at, placed := strings.Cut(word, "=")
			require.Contains(t, deedNames, deed, line)
			require.Equal(t, deed == "writes" || deed == "reads", placed, line)
			if placed {
				require.Contains(t, []string{"1", "state=", "root", "bodies"}, at, line)
			}
		}
		d := directives()[fields[0]]
		require.Equal(t, fields[1:3], []string{d.source, d.module})
		if len(fields) > 4 {
			require.Equal(t, fields[4], d.undo)
			require.True(t, strings.HasSuffix(d.undo, ";"), line)
		}
		names = append(names, fields[0])
	}
	require.True(t, slices.IsSorted(names))
	require.Len(t, directives(), len(names))
}

// documentedName is the name of a directive in the documentation.
var documentedName = regexp.MustCompile("`([a-z][a-z0-9_]+)`")

// docs/transform.md and the table agree on each directive, and the directives that the page lists
// as never touched have no effect that concerns a rule.
func TestDocumentedDirectives(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../docs/transform.md")
	require.NoError(t, err)
	text := string(data)
	between := func(from, to string) string {
		_, rest, ok := strings.Cut(text, from)
		require.True(t, ok, from)
		part, _, ok := strings.Cut(rest, to)
		require.True(t, ok, to)
		return part
	}
	documented := map[string]bool{}
	for line := range strings.Lines(between("<!-- deeds -->\n| it |", "<!-- end of deeds -->")) {
		cells := strings.Split(line, "|")
		first := documentedName.FindStringSubmatch(strings.Join(cells[1:2], ""))
		if len(cells) < 4 || first == nil {
			continue
		}
		deed := deedNames[first[1]]
		require.NotZero(t, deed, line)
		documented[first[1]] = true
		examples := documentedName.FindAllStringSubmatch(cells[3], -1)
		require.NotEmpty(t, examples, line)
		for _, name := range examples {
			require.Contains(t, directives(), name[1])
			require.True(t, directives()[name[1]].is(deed), "%s: %s", name[1], first[1])
		}
	}
	require.Len(t, documented, len(deedNames))

	names := documentedName.FindAllStringSubmatch(between("## What is never touched\n", "\n## "),
		-1)
	require.NotEmpty(t, names)
	for _, name := range names {
		require.Contains(t, directives(), name[1])
		require.False(t, directives()[name[1]].is(
			opens|outbound|program|writes|reads|keys|status|picks), name[1])
	}
}
