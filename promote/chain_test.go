package promote_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/soak"
	"github.com/sluice-deploy/sluice/promote"
)

// altered is a journal whose reader finds other entries than were written.
type altered struct {
	promote.Journal
	alter func(*promote.Entry)
}

func (j altered) Read(ctx context.Context, after uint64) ([]promote.Entry, error) {
	entries, err := j.Journal.Read(ctx, after)
	for i := range entries {
		j.alter(&entries[i])
	}
	return entries, err
}

// TestReadOnlyCluster: an entry that cannot be taken in stops what is written for its cluster, and
// nothing else.
func TestReadOnlyCluster(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		alter func(*promote.Entry)
		is    error
		says  string
	}{
		"damaged record": {func(e *promote.Entry) {
			*e = promote.Entry{At: e.At, Seq: e.Seq, Target: e.Target, Damage: "no JSON"}
		}, promote.ErrDamaged, "cluster \"web\": entry 2 at position 3 of the journal: no JSON"},
		"other actor": {func(e *promote.Entry) { e.Actor = "mallory" }, promote.ErrDamaged,
			"entry 2: its content after entry 1 has the chain"},
		"other chain": {func(e *promote.Entry) { e.Chain = strings.Repeat("0", 64) },
			promote.ErrDamaged, "one of the two entries was changed"},
		"no chain": {func(e *promote.Entry) { e.Chain = "" }, promote.ErrDamaged,
			"entry 2 has no chain, and the one before it has"},
		"newer format": {func(e *promote.Entry) { e.Needs = promote.EntryFormat + 1 },
			promote.ErrNewer, "it needs format 4, and this program knows 3: start a newer one"},
		"number left out": {func(e *promote.Entry) { e.Seq = 3 }, promote.ErrDamaged,
			"it does not come next after entry 1"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j, ctx := promote.NewMemJournal(), t.Context()
			writer := newPromoter(t, promote.Config{Journal: j, Deployer: newWorld()})
			other := binding("v1", digest(1))
			other.Cluster = "api"
			require.NoError(t, writer.Bind(ctx, binding("v1", digest(1))))
			require.NoError(t, writer.Bind(ctx, other))
			require.NoError(t, writer.Bind(ctx, binding("v2", digest(2))))

			p := newPromoter(t, promote.Config{Deployer: newWorld(),
				Journal: altered{j, func(e *promote.Entry) {
					if e.At == 3 {
						test.alter(e)
					}
				}}})
			versions, err := p.Bindings(ctx, "web")
			require.NoError(t, err)
			require.Len(t, versions, 1, "the state ends before the entry")
			err = p.Bind(ctx, binding("v3", digest(3)))
			require.ErrorIs(t, err, test.is)
			require.ErrorContains(t, err, test.says)
			_, err = p.Promote(ctx, request("test", "v1"))
			require.ErrorIs(t, err, test.is)
			require.ErrorIs(t, p.Check(ctx, request("test", "v1")), test.is)
			elsewhere := request("test", "v1")
			elsewhere.Cluster = "api"
			_, err = p.Promote(ctx, elsewhere)
			require.NoError(t, err, "other clusters go on")
		})
	}
}

func TestUnknownKindMakesItsClusterReadOnly(t *testing.T) {
	t.Parallel()
	j := promote.NewMemJournal()
	_, err := j.Append(t.Context(), promote.Entry{Seq: 1, Kind: "sealed", Target: in("test")})
	require.NoError(t, err)
	p := newPromoter(t, promote.Config{Journal: j, Deployer: newWorld()})
	_, err = p.Current(t.Context())
	require.NoError(t, err)
	err = p.Bind(t.Context(), binding("v1", digest(1)))
	require.ErrorIs(t, err, promote.ErrNewer)
	require.ErrorContains(t, err, "entry 1 at position 1 of the journal: sealed web in test: "+
		"unknown kind of entry: newer program needed")
}

// TestSetBack: another copy of the journal has grown while this Promoter had read the first one.
func TestSetBack(t *testing.T) {
	t.Parallel()
	j := &swapped{Journal: promote.NewMemJournal()}
	p := newPromoter(t, promote.Config{Journal: j, Deployer: newWorld()})
	require.NoError(t, p.Bind(t.Context(), binding("v1", digest(1))))
	j.Journal = promote.NewMemJournal()
	other := newPromoter(t, promote.Config{Journal: j, Deployer: newWorld()})
	api := binding("v1", digest(1))
	api.Cluster = "api"
	require.NoError(t, other.Bind(t.Context(), api))
	require.NoError(t, other.Bind(t.Context(), binding("v2", digest(2))))
	err := p.Bind(t.Context(), binding("v3", digest(3)))
	require.ErrorIs(t, err, promote.ErrSetBack)
	require.ErrorContains(t, err, `cluster "web": entry 1 at position 2 of the journal: it has `+
		"another content than before")
	require.NoError(t, newPromoter(t, promote.Config{Journal: j, Deployer: newWorld()}).
		Bind(t.Context(), binding("v3", digest(3))), "a new one reads from the beginning")
}

// export returns a journal with entries of three clusters as lines.
func export(t *testing.T) []byte {
	t.Helper()
	w := newWorld()
	j := promote.NewMemJournal()
	p := newPromoter(t, promote.Config{Journal: j, Deployer: w})
	for n := range 10 {
		for _, cluster := range []string{"web", "api", "db"} {
			b := binding(fmt.Sprint("v", n), digest(n+1))
			b.Cluster = cluster
			require.NoError(t, p.Bind(t.Context(), b))
			r := request("test", b.Version)
			r.Cluster, r.Reason = cluster, "世界 <&\"\n>"
			_, err := p.Promote(t.Context(), r)
			require.NoError(t, err)
		}
	}
	var out bytes.Buffer
	require.NoError(t, promote.Export(t.Context(), &out, j))
	return out.Bytes()
}

func TestVerify(t *testing.T) {
	t.Parallel()
	whole := export(t)
	heads, err := promote.Verify(bytes.NewReader(whole))
	require.NoError(t, err)
	require.Len(t, heads, 3)
	require.Equal(t, uint64(30), heads["web"].Seq)
	empty, err := promote.Verify(strings.NewReader(""))
	require.NoError(t, err)
	require.Empty(t, empty)

	lines := bytes.SplitAfter(whole, []byte("\n"))
	without := bytes.Join(append(append([][]byte{}, lines[:4]...), lines[5:]...), nil)
	_, err = promote.Verify(bytes.NewReader(without))
	require.ErrorIs(t, err, promote.ErrDamaged)
	_, err = promote.Verify(bytes.NewReader(append(whole[:len(whole):len(whole)], lines[3]...)))
	require.ErrorIs(t, err, promote.ErrDamaged, "a record that is there twice")
	_, err = promote.Verify(bytes.NewReader(whole[:len(whole)-1]))
	require.ErrorContains(t, err, "the file was cut off")
}

// TestVerifyFindsEachBit flips bits of an exported journal and cuts it off, one at a time. Each is
// found, or shows in the heads.
func TestVerifyFindsEachBit(t *testing.T) {
	t.Parallel()
	whole := export(t)
	want, err := promote.Verify(bytes.NewReader(whole))
	require.NoError(t, err)
	random := rand.New(rand.NewPCG(1, 2))
	for range soak.Count(1000, 100_000) {
		at, bit := random.IntN(len(whole)), random.IntN(8)
		flipped := bytes.Clone(whole)
		flipped[at] ^= 1 << bit
		_, err := promote.Verify(bytes.NewReader(flipped))
		require.ErrorIs(t, err, promote.ErrDamaged, "bit %d of byte %d", bit, at)

		heads, err := promote.Verify(bytes.NewReader(whole[:at]))
		if err == nil {
			require.NotEqual(t, want, heads, "cut off after %d bytes", at)
			continue
		}
		require.ErrorIs(t, err, promote.ErrDamaged)
	}
}

// TestChain holds the form of a record and its chain, which must not change.
func TestChain(t *testing.T) {
	t.Parallel()
	j := promote.NewMemJournal()
	p := newPromoter(t, promote.Config{Journal: j, Deployer: newWorld(),
		Now: func() time.Time { return time.Date(2026, 11, 30, 7, 0, 0, 0, time.UTC) }})
	require.NoError(t, p.Bind(t.Context(), binding("v1", digest(1))))
	require.NoError(t, p.Bind(t.Context(), binding("v2", digest(2))))
	var out bytes.Buffer
	require.NoError(t, promote.Export(t.Context(), &out, j))
	lines := strings.Split(out.String(), "\n")
	begin := `{"seq":1,"time":"2026-11-30T07:00:00Z","kind":"bound","cluster":"web",` +
		`"version":"v1","digest":"sha256:` + strings.Repeat("01", 32) +
		`","repository":"registry:5000/web","actor":"ci"`
	const first = "a3a477c9c85df17e86dcc4212cd37111e5914f74b2673dfda14652d6b02c73e8"
	require.Equal(t, begin+`,"chain":"`+first+`"}`, lines[0])
	require.Equal(t, first, fmt.Sprintf("%x", sha256.Sum256([]byte(begin+"}"))))
	second, chain, _ := strings.Cut(lines[1], `,"chain":"`)
	require.Equal(t, chain, fmt.Sprintf("%x\"}", sha256.Sum256([]byte(first+second+"}"))))
}
