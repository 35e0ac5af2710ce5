package promote_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/archivetest"
)

func TestMemArchive(t *testing.T) {
	t.Parallel()
	archivetest.Run(t, func(*testing.T) promote.Archive { return promote.NewMemArchive() })
}

// keep asks for the archiving of all entries of web but the newest.
func keep(n int) promote.ArchiveRequest {
	return promote.ArchiveRequest{Cluster: "web", Keep: n, Actor: "night"}
}

// archiving is a promoter whose web has eight changes and two versions, beside one of api.
func archiving(t *testing.T, j promote.Journal, a promote.Archive) *promote.Promoter {
	t.Helper()
	p := newPromoter(t, promote.Config{Journal: j, Archive: a, Deployer: newWorld()})
	for n := 1; n <= 2; n++ {
		require.NoError(t, p.Bind(t.Context(), binding(fmt.Sprint("v", n), digest(n))))
	}
	api := binding("v1", digest(1))
	api.Cluster = "api"
	for n := range 8 {
		_, err := p.Promote(t.Context(), request("test", fmt.Sprint("v", n%2+1)))
		require.NoError(t, err)
		if n == 4 {
			require.NoError(t, p.Bind(t.Context(), api))
		}
	}
	return p
}

// facts are everything that a promoter says about a journal.
func facts(t *testing.T, p *promote.Promoter) (list []any) {
	t.Helper()
	current, err := p.Current(t.Context())
	require.NoError(t, err)
	history, err := p.History(t.Context(), promote.Target{})
	require.NoError(t, err)
	versions, err := p.Bindings(t.Context(), "")
	require.NoError(t, err)
	return append(list, current, history, versions)
}

func TestArchive(t *testing.T) {
	t.Parallel()
	journal, archive := promote.NewMemJournal(), promote.NewMemArchive()
	p := archiving(t, journal, archive)
	n, err := p.Archive(t.Context(), keep(6))
	require.NoError(t, err)
	require.Equal(t, 12, n)
	n, err = p.Archive(t.Context(), keep(6))
	require.NoError(t, err)
	require.Equal(t, 1, n, "one entry more, the checkpoint, is in the journal")
	left, err := journal.Read(t.Context(), 0)
	require.NoError(t, err)
	require.Len(t, left, 8, "seven of web and the one of api")
	n, err = p.Archive(t.Context(), keep(50))
	require.NoError(t, err)
	require.Zero(t, n)

	next := newPromoter(t, promote.Config{Journal: journal, Archive: archive,
		Deployer: newWorld()})
	require.Equal(t, facts(t, p), facts(t, next))
	_, err = next.Rollback(t.Context(), promote.RollbackRequest{Target: in("test"),
		Digest: digest(1), Expect: digest(2), Actor: "ann"})
	require.NoError(t, err, "to a digest whose entries are archived")
	require.Equal(t, facts(t, next), facts(t, p), "both read on")
	all, err := p.Watch(t.Context(), 0)
	require.NoError(t, err)
	for i := range all[1:] {
		require.Less(t, all[i].At, all[i+1].At)
	}

	without := newPromoter(t, promote.Config{Journal: journal, Deployer: newWorld()})
	err = without.Bind(t.Context(), binding("v9", digest(9)))
	require.ErrorIs(t, err, promote.ErrDamaged)
	require.ErrorContains(t, err, "is Config.Archive theirs?")
	other := binding("v9", digest(9))
	other.Cluster = "api"
	require.NoError(t, without.Bind(t.Context(), other), "other clusters go on")
}

// TestVerifySegments reads the segments and the rest of the journal as they are, without a program
// that knows of an archive.
func TestVerifySegments(t *testing.T) {
	t.Parallel()
	journal, archive := promote.NewMemJournal(), promote.NewMemArchive()
	p := archiving(t, journal, archive)
	var before bytes.Buffer
	require.NoError(t, promote.Export(t.Context(), &before, journal))
	var files bytes.Buffer
	for range 2 {
		_, err := p.Archive(t.Context(), keep(4))
		require.NoError(t, err)
	}
	history, err := p.History(t.Context(), promote.Target{})
	require.NoError(t, err)
	for _, e := range history {
		if e.Kind == promote.Checkpoint {
			segment, err := archive.Get(t.Context(), e.Note)
			require.NoError(t, err)
			files.Write(segment)
		}
	}
	cut := files.Len()
	require.NoError(t, promote.Export(t.Context(), &files, journal))
	heads, err := promote.Verify(bytes.NewReader(files.Bytes()))
	require.NoError(t, err)
	require.Equal(t, uint64(20), heads["web"].Seq)
	_, err = promote.Verify(bytes.NewReader(files.Bytes()[cut:]))
	require.ErrorIs(t, err, promote.ErrDamaged, "a part without the segments before it")
	for at := 40; at < cut; at += 97 { // a bit of each few lines
		bad := bytes.Clone(files.Bytes())
		bad[at] ^= 4
		changed, err := promote.Verify(bytes.NewReader(bad))
		if err == nil { // of At, which is no part of the chain
			require.Equal(t, heads, changed)
			line := bad[bytes.LastIndexByte(bad[:at], '\n')+1:]
			require.Less(t, at-(len(bad)-len(line)), len(`{"at":1234,"record":`))
		}
	}
}

// broken is an archive that fails.
type broken struct {
	*promote.MemArchive
	get map[string]error
	put error
}

func (b *broken) Get(ctx context.Context, name string) ([]byte, error) {
	if err := b.get[name]; err != nil {
		return nil, err
	}
	return b.MemArchive.Get(ctx, name)
}

func (b *broken) Put(ctx context.Context, name string, segment []byte) error {
	if b.put != nil {
		return b.put
	}
	return b.MemArchive.Put(ctx, name, segment)
}

// An archive that cannot be asked is no reason to believe that entries are lost; a segment that is
// not there, or is another one, harms its cluster alone.
func TestArchiveThatFails(t *testing.T) {
	t.Parallel()
	journal := promote.NewMemJournal()
	archive := &broken{MemArchive: promote.NewMemArchive(), get: map[string]error{}}
	p := archiving(t, journal, archive)
	archive.put = errBroken
	_, err := p.Archive(t.Context(), keep(4))
	require.ErrorIs(t, err, errBroken)
	all, err := journal.Read(t.Context(), 0)
	require.NoError(t, err)
	require.Len(t, all, 19, "nothing was written, and nothing removed")
	archive.put = nil
	_, err = p.Archive(t.Context(), keep(4))
	require.NoError(t, err)

	const name = "segment-web-00000000000000000001-00000000000000000014.jsonl"
	segment, err := archive.MemArchive.Get(t.Context(), name)
	require.NoError(t, err)
	for what, harm := range map[string]func(){
		"cannot be asked": func() { archive.get[name] = errors.New("connection refused") },
		"not there":       func() { archive.get[name] = promote.ErrNotFound },
		"another one": func() {
			bad := bytes.Clone(segment)
			bad[100] ^= 1
			require.NoError(t, archive.MemArchive.Put(t.Context(), name, bad))
		},
	} {
		clear(archive.get)
		require.NoError(t, archive.MemArchive.Put(t.Context(), name, segment))
		harm()
		next := newPromoter(t, promote.Config{Journal: journal, Archive: archive,
			Deployer: newWorld()})
		err := next.Bind(t.Context(), binding("v3", digest(3)))
		other := binding("v1", digest(1))
		other.Cluster = "api"
		if what == "cannot be asked" {
			require.ErrorContains(t, err, "connection refused")
			require.NotErrorIs(t, err, promote.ErrDamaged)
			clear(archive.get)
			require.NoError(t, next.Bind(t.Context(), binding("v1", digest(1))), "asked again")
			continue
		}
		require.ErrorIs(t, err, promote.ErrDamaged, what)
		require.ErrorContains(t, err, name)
		require.NoError(t, next.Bind(t.Context(), other), what)
	}
}

func TestArchiveRequests(t *testing.T) {
	t.Parallel()
	p := archiving(t, promote.NewMemJournal(), promote.NewMemArchive())
	for want, r := range map[string]promote.ArchiveRequest{
		"keep 0 entries: want 1 or more": {Cluster: "web", Actor: "ann"},
		"keep -1 entries":                {Cluster: "web", Keep: -1, Actor: "ann"},
		"actor":                          {Cluster: "web", Keep: 1},
	} {
		_, err := p.Archive(t.Context(), r)
		require.ErrorIs(t, err, promote.ErrInvalid)
		require.ErrorContains(t, err, want)
	}
	_, err := p.Archive(t.Context(), promote.ArchiveRequest{Cluster: "wep", Keep: 1, Actor: "ann"})
	require.ErrorIs(t, err, promote.ErrNotFound)
	bare := newPromoter(t, promote.Config{Journal: promote.NewMemJournal(), Deployer: newWorld()})
	_, err = bare.Archive(t.Context(), keep(1))
	require.ErrorIs(t, err, promote.ErrInvalid)
	require.ErrorContains(t, err, "Config.Archive")
}

// mortalArchive and mortalTrimmer end with their process.
type mortalArchive struct {
	promote.Archive
	*life
}

func (a mortalArchive) Put(ctx context.Context, name string, segment []byte) error {
	return a.do(func() error { return a.Archive.Put(ctx, name, segment) })
}

type mortalTrimmer struct {
	mortalJournal
	trimmer promote.Trimmer
}

func (j mortalTrimmer) Trim(ctx context.Context, cluster string, through uint64) error {
	return j.do(func() error { return j.trimmer.Trim(ctx, cluster, through) })
}

// A promoter dies at each step of an archiving: the next one has every entry, and finishes.
func TestArchiveKilledAtEachStep(t *testing.T) {
	t.Parallel()
	deaths := 0
	for steps := range 4 {
		for _, lostAnswer := range []bool{false, true} {
			journal, archive := promote.NewMemJournal(), promote.NewMemArchive()
			want := facts(t, archiving(t, journal, archive))
			l := &life{steps: steps, lostAnswer: lostAnswer}
			mortal := newPromoter(t, promote.Config{Archive: mortalArchive{archive, l},
				Journal: mortalTrimmer{mortalJournal{journal, l}, journal}, Deployer: newWorld()})
			_, err := mortal.Archive(t.Context(), keep(5))
			if l.died() {
				deaths++
				require.ErrorIs(t, err, errKilled)
			}
			next := newPromoter(t, promote.Config{Journal: journal, Archive: archive,
				Deployer: newWorld()})
			got := facts(t, next)
			history := got[1].([]promote.Entry)
			if last := history[len(history)-1]; last.Kind == promote.Checkpoint {
				got[1] = history[:len(history)-1]
			}
			require.Equal(t, want, got, "killed after %d steps", steps)
			_, err = next.Archive(t.Context(), keep(5))
			require.NoError(t, err)
			left, err := journal.Read(t.Context(), 0)
			require.NoError(t, err)
			require.LessOrEqual(t, len(left), 8)
		}
	}
	require.Equal(t, 6, deaths)
}

// Two promoters archive the same cluster at once: each entry is in one segment.
func TestArchiveByTwo(t *testing.T) {
	t.Parallel()
	journal, archive := promote.NewMemJournal(), promote.NewMemArchive()
	want := facts(t, archiving(t, journal, archive))
	ended := make(chan error)
	for range 2 {
		p := newPromoter(t, promote.Config{Journal: journal, Archive: archive,
			Deployer: newWorld()})
		go func() {
			_, err := p.Archive(context.WithoutCancel(t.Context()), keep(5))
			ended <- err
		}()
	}
	for range 2 {
		if err := <-ended; err != nil {
			require.ErrorIs(t, err, promote.ErrConflict)
		}
	}
	got := facts(t, newPromoter(t, promote.Config{Journal: journal, Archive: archive,
		Deployer: newWorld()}))
	got[1] = got[1].([]promote.Entry)[:len(want[1].([]promote.Entry))]
	require.Equal(t, want, got)
}
