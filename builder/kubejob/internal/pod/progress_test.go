package pod

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/builder"
)

// Output without line feeds, as of a progress bar, is not kept in memory; nothing of it is lost,
// and a value that lies across the place where it is cut is masked.
func TestOutputWithoutLineFeed(t *testing.T) {
	t.Parallel()
	const secret = "sesame-open"
	var kept bytes.Buffer
	log := NewLog(&bytes.Buffer{}, &kept, 64<<20)
	log.Masks.Add(secret)
	p := newProgress(log, builder.Plan{})
	text := strings.Repeat(strings.Repeat("x", 97)+secret, 10_000)
	for piece := range slices.Chunk([]byte(text), 1000) {
		p.output("a", piece)
		require.LessOrEqual(t, len(p.held["a"]), maxHeld+1000)
	}
	p.end("a")
	got := strings.NewReplacer("\n", "", " ", "").Replace(kept.String())
	require.Equal(t, strings.ReplaceAll(text, secret, "***"), got)
	require.Empty(t, p.held)
}
