package kubejob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/builder/builds"
	"github.com/sluice-deploy/sluice/builder/kubejob/internal/pod"
	"github.com/sluice-deploy/sluice/internal/soak"
)

var errDisk = errors.New("no space left on device")

// failing is a store whose appends fail at random: before they came through, after it, and with
// a part of the text.
type failing struct {
	*builds.Memory
	random *rand.Rand
	rate   float64
}

func (f *failing) AppendLog(ctx context.Context, key string, offset int64, data []byte) error {
	if f.random.Float64() >= f.rate {
		return f.Memory.AppendLog(ctx, key, offset, data)
	}
	n := []int{0, len(data), f.random.IntN(len(data))}[f.random.IntN(3)]
	if n > 0 {
		if err := f.Memory.AppendLog(ctx, key, offset, data[:n]); err != nil {
			return err
		}
	}
	return errDisk
}

// However the store fails, and wherever processes are killed, the store has each line once in
// the end, and a process that is killed and followed by another one leaves no part of a line.
func TestArchiveThroughFailures(t *testing.T) {
	t.Parallel()
	for seed := range soak.Count(40, 4000) {
		random := rand.New(rand.NewPCG(uint64(seed), 18))
		store := &failing{Memory: builds.NewMemory(), random: random, rate: random.Float64()}
		var want []byte
		lines := make([]pod.Line, 1+random.IntN(60))
		for i := range lines {
			lines[i] = pod.Line{Number: int64(i) + 1, Text: fmt.Sprintf("line %d %0*d", i+1,
				random.IntN(3000), 0)}
			want = append(append(want, lines[i].Text...), '\n')
		}
		trailer := &pod.Trailer{Lines: int64(len(lines)), Bytes: int64(len(want))}
		for killed := true; killed; {
			a := &archive{key: "k", store: store, to: io.Discard}
			require.NoError(t, a.open(t.Context()))
			killed = random.IntN(3) == 0
			upTo := len(lines)
			if killed {
				upTo = random.IntN(len(lines))
			}
			for i := max(0, int(a.lines)-random.IntN(5)); i < upTo; i++ { // some come twice
				a.take(t.Context(), lines[i])
				if random.IntN(4) == 0 {
					_ = a.sync(t.Context())
				}
			}
			if killed {
				continue
			}
			a.settle(t.Context(), nil, trailer)
			store.rate = 0.5
			for a.sync(t.Context()) != nil {
			}
			require.Equal(t, builds.LogState{Bytes: int64(len(want)), Verdict: builds.Complete},
				a.state, "seed %d", seed)
		}
		got, _, err := store.ReadLog(t.Context(), "k", 0, len(want)+1)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got), "seed %d: %d bytes, want %d", seed, len(got),
			len(want))
	}
}

// Lines that are lost are counted, and a process that takes the log up behind them counts them
// again.
func TestArchiveCountsMissingLines(t *testing.T) {
	t.Parallel()
	store := builds.NewMemory()
	a := &archive{key: "k", store: store}
	for _, n := range []int64{1, 2, 6, 7} {
		a.take(t.Context(), pod.Line{Number: n, Text: fmt.Sprint("line ", n)})
	}
	trailer := &pod.Trailer{Lines: 9}
	a.settle(t.Context(), nil, trailer)
	require.NoError(t, a.sync(t.Context()))
	want := "line 1\nline 2\n[3 lines of the log are missing here: 3 to 5]\nline 6\nline 7\n" +
		"[2 lines of the log are missing here: 8 to 9]\n"
	state := builds.LogState{Bytes: int64(len(want)), Verdict: builds.Gap}
	require.Equal(t, state, a.state)
	require.Equal(t, int64(5), a.missed)

	next := &archive{key: "k", store: store}
	require.NoError(t, next.open(t.Context()))
	next.take(t.Context(), pod.Line{Number: 7, Text: "line 7"})
	next.settle(t.Context(), []byte("another text\n"), trailer)
	require.NoError(t, next.sync(t.Context()))
	require.Equal(t, state, next.state)
	require.Equal(t, int64(5), next.missed)
	require.Equal(t, int64(9), next.lines)
	got, _, err := store.ReadLog(t.Context(), "k", 0, 1000)
	require.NoError(t, err)
	require.Equal(t, want, string(got))
}

// Text that does not fit into memory while the store fails comes from the copy that the pod has
// pushed.
func TestArchiveIsBounded(t *testing.T) {
	t.Parallel()
	a := &archive{key: "k", store: &failing{Memory: builds.NewMemory(), rate: 1,
		random: rand.New(rand.NewPCG(1, 18))}, broken: errDisk}
	text := string(bytes.Repeat([]byte("x"), 1<<20))
	for n := range int64(80) {
		a.take(t.Context(), pod.Line{Number: n + 1, Text: text})
	}
	require.True(t, a.cut)
	require.LessOrEqual(t, len(a.waiting), maxHeld)
	require.Equal(t, int64(80*(1<<20+1)), a.bytes)
	whole := bytes.Repeat(append([]byte(text), '\n'), 80)
	a.store = builds.NewMemory()
	require.NoError(t, a.replace(t.Context(), whole))
	_, size, err := a.store.ReadLog(t.Context(), "k", 0, 0)
	require.NoError(t, err)
	require.Equal(t, int64(len(whole)), size)
}
