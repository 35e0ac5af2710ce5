package promote

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Archive keeps segments: the older entries of a cluster, which a Journal then lets go of. All
// methods are safe for concurrent use; when ctx has ended they return its cause.
type Archive interface {
	// Put keeps a segment under a name. When it returns nil the segment survives a crash. A name
	// comes again with the same content only.
	Put(ctx context.Context, name string, segment []byte) error
	// Get returns a segment, or an error that wraps ErrNotFound where there is none of that name.
	Get(ctx context.Context, name string) ([]byte, error)
}

// Trimmer is a Journal that lets go of entries. journaltest.RunTrimmer holds one to this contract.
type Trimmer interface {
	Journal
	// Trim removes the entries of a cluster that have a Seq up to through, and never its last one:
	// that is ErrInvalid. Reads leave removed entries out. A Trim that was cut off may have removed
	// some of them, the oldest first, and is repeated.
	Trim(ctx context.Context, cluster string, through uint64) error
}

// ArchiveRequest asks to move the older entries of a cluster from the journal to the archive.
type ArchiveRequest struct {
	// Cluster is the cluster; empty for the entries for all clusters.
	Cluster string
	// Keep is how many of the newest entries stay in the journal.
	Keep int
	// Actor is the requester. It must not be empty.
	Actor string
}

// formatCheckpoint is the EntryFormat from which on programs know a Checkpoint.
const formatCheckpoint = 3

// Archive moves the older entries of a cluster to Config.Archive and returns how many that were: it
// writes a segment, then a Checkpoint entry with the segment's name and digest, and only then has
// the journal let go of the entries, so that each is in one of the two whenever the process ends.
// Called again it finishes an earlier call that was cut off. The journal has to be a Trimmer.
//
// Every Promoter of the journal needs the same Config.Archive from then on: it reads the entries
// from there when it starts.
func (p *Promoter) Archive(ctx context.Context, r ArchiveRequest) (n int, err error) {
	defer p.watched("archive", &err)()
	trimmer, ok := p.journal.(*archived)
	var list problems
	if !ok {
		list.add("Config.Archive: nil, or Config.Journal is no Trimmer: want both")
	}
	if r.Keep < 1 {
		list.add("keep %d entries: want 1 or more", r.Keep)
	}
	list.texts(r.Actor, "")
	if err := list.err("archive"); err != nil {
		return 0, err
	}
	fail := func(err error) error {
		return fmt.Errorf("archive entries of cluster %q: %w", r.Cluster, withCause(ctx, err))
	}
	var older []Entry
	var before Entry
	var refused error
	err = p.view(ctx, func(s *state) {
		if s.clusters[r.Cluster] == nil {
			refused = fmt.Errorf("it has none: %w", ErrNotFound)
		} else if refused = s.writable(r.Cluster); refused == nil {
			older, before = s.older(r.Cluster, r.Keep)
		}
	})
	if err := errors.Join(err, refused); err != nil {
		return 0, fail(err)
	}
	through := before.Through
	if len(older) > 0 {
		segment, err := segmentOf(older)
		if err != nil {
			return 0, fail(err)
		}
		last := older[len(older)-1]
		e := Entry{Kind: Checkpoint, Target: Target{Cluster: r.Cluster}, Actor: r.Actor,
			Digest: digestOf(segment), Through: last.Seq, ThroughAt: last.At,
			Note: segmentName(r.Cluster, older[0].Seq, last.Seq), Needs: formatCheckpoint}
		if err := trimmer.archive.Put(ctx, e.Note, segment); err != nil {
			return 0, fail(err)
		}
		wrote, err := p.commit(ctx, func(s *state) (Entry, bool, error) {
			return e, s.checkpoint(r.Cluster).Seq == before.Seq, nil
		})
		if err != nil {
			return 0, fail(err)
		}
		if wrote.Kind == "" {
			return 0, fail(fmt.Errorf("another caller has archived some meanwhile: %w",
				ErrConflict))
		}
		through = last.Seq
	}
	if through > 0 {
		err = trimmer.Trim(ctx, r.Cluster, through)
	}
	if err != nil {
		return len(older), fail(err)
	}
	return len(older), nil
}

// older returns the entries of a cluster that are to be archived, and its last Checkpoint.
func (s *state) older(name string, keep int) (older []Entry, before Entry) {
	before = s.checkpoint(name)
	c := s.clusters[name]
	for _, e := range c.entries[:max(0, len(c.entries)-keep)] {
		if e.Seq > before.Through {
			older = append(older, e)
		}
	}
	return older, before
}

// checkpoint returns the last Checkpoint of a cluster; the zero Entry when there is none.
func (s *state) checkpoint(name string) Entry {
	if c := s.clusters[name]; c != nil && c.checkpoint != nil {
		return *c.checkpoint
	}
	return Entry{}
}

// A line of a segment is a record with its place in the whole journal: opensLine, At, opensRecord,
// the record, closesLine.
const (
	opensLine   = `{"at":`
	opensRecord = `,"record":`
	closesLine  = "}"
)

func segmentOf(entries []Entry) ([]byte, error) {
	var segment bytes.Buffer
	for _, e := range entries {
		record, err := e.Record()
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", e.Seq, err)
		}
		fmt.Fprintf(&segment, "%s%d%s%s%s\n", opensLine, e.At, opensRecord, record, closesLine)
	}
	return segment.Bytes(), nil
}

// recordIn returns the record of a line of a segment, and a line of an export as it is.
func recordIn(line []byte) []byte {
	rest, ok := bytes.CutPrefix(line, []byte(opensLine))
	if !ok {
		return line
	}
	_, record, ok := bytes.Cut(rest, []byte(opensRecord))
	if !ok {
		return line
	}
	return bytes.TrimSuffix(record, []byte(closesLine))
}

func digestOf(segment []byte) Digest {
	return Digest(fmt.Sprintf("sha256:%x", sha256.Sum256(segment)))
}

// segmentName is a name that fits into a file system.
func segmentName(cluster string, first, last uint64) string {
	return fmt.Sprintf("segment-%s-%020d-%020d.jsonl", strings.ReplaceAll(url.PathEscape(cluster),
		"~", "%7E"), first, last)
}

// archived is a Journal whose older entries are in an Archive.
type archived struct {
	Trimmer
	archive Archive
}

// Read implements Journal: it returns all entries after the place. The entries that the journal has
// let go of are named by a Checkpoint, which it keeps, or which is in the next segment.
func (j *archived) Read(ctx context.Context, after uint64) ([]Entry, error) {
	var all []Entry
	for at := after; ; {
		entries, err := j.Trimmer.Read(ctx, at)
		if err != nil {
			return nil, err
		}
		if len(entries) == 0 {
			break
		}
		all, at = append(all, entries...), entries[len(entries)-1].At
	}
	type place struct {
		cluster string
		seq     uint64
	}
	var have map[place]bool         // of all
	for i := 0; i < len(all); i++ { // all grows by older entries, with older Checkpoints
		if all[i].Kind != Checkpoint || all[i].ThroughAt <= after {
			continue
		}
		if have == nil {
			have = make(map[place]bool, len(all))
			for _, e := range all {
				have[place{e.Cluster, e.Seq}] = true
			}
		}
		segment, err := j.segment(ctx, all[i])
		if err != nil {
			return nil, err
		}
		for _, e := range segment {
			if e.At > after && !have[place{e.Cluster, e.Seq}] {
				have[place{e.Cluster, e.Seq}] = true
				all = append(all, e)
			}
		}
	}
	if have == nil {
		return all, nil
	}
	slices.SortStableFunc(all, func(a, b Entry) int { return cmp.Compare(a.At, b.At) })
	return all, nil
}

// segment reads the segment that a Checkpoint names. One that is not there, or not the one that was
// written, is an entry with a Damage, for the cluster alone.
func (j *archived) segment(ctx context.Context, checkpoint Entry) ([]Entry, error) {
	damaged := func(format string, args ...any) ([]Entry, error) {
		return []Entry{{At: checkpoint.ThroughAt, Seq: checkpoint.Through,
			Target: checkpoint.Target, Damage: "segment " + checkpoint.Note + " of the archive: " +
				fmt.Sprintf(format, args...)}}, nil
	}
	data, err := j.archive.Get(ctx, checkpoint.Note)
	switch {
	case errors.Is(err, ErrNotFound):
		return damaged("%v", err)
	case err != nil:
		return nil, fmt.Errorf("segment %s of the archive: %w", checkpoint.Note, err)
	case digestOf(data) != checkpoint.Digest:
		return damaged("it has the digest %s, and %s was written", digestOf(data).Short(),
			checkpoint.Digest.Short())
	}
	var entries []Entry
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, len(data)+1)
	for lines.Scan() {
		var at struct {
			At uint64 `json:"at"`
		}
		if err := json.Unmarshal(lines.Bytes(), &at); err != nil {
			return damaged("%v", err)
		}
		e, err := ParseRecord(recordIn(lines.Bytes()))
		if err != nil {
			return damaged("%v", err)
		}
		e.At = at.At
		entries = append(entries, e)
	}
	return entries, nil
}
