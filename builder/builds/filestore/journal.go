package filestore

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/builds"
)

// journal is the file of entries as it was read last. Compact replaces the file: a process that has
// the old one open finds another one under the name, and opens that.
type journal struct {
	name string
	file *os.File
	// removed are the numbers that Compact removed, from the first line of the file, in order.
	removed []span
	begin   int64 // of the first entry
	lines   []line
}

// line is an entry's.
type line struct {
	seq uint64
	end int64 // behind its newline
}

// span is a range of numbers, both included.
type span struct {
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
}

// head is the first line of a file that Compact wrote.
type head struct {
	Removed []span `json:"removed"`
}

const headStart = `{"removed":`

// open opens the file, and forgets the content of an earlier one.
func (j *journal) open() error {
	f, err := os.OpenFile(j.name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if j.file != nil {
		j.file.Close()
	}
	*j = journal{name: j.name, file: f}
	text, err := bufio.NewReader(f).ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if !bytes.HasPrefix(text, []byte(headStart)) {
		return nil
	}
	var h head
	if err := json.Unmarshal(text, &h); err != nil {
		return fmt.Errorf("%s:1: the numbers of removed entries cannot be read: bring the file "+
			"back from a copy: %w", j.name, err)
	}
	j.removed, j.begin = h.Removed, int64(len(text))
	return nil
}

// replaced reports whether another file has the name now.
func (j *journal) replaced() (bool, error) {
	now, err := os.Stat(j.name)
	if err != nil {
		return false, err
	}
	mine, err := j.file.Stat()
	return err == nil && !os.SameFile(now, mine), err
}

// current reads the file that has the name now to its end.
func (j *journal) current() error {
	other, err := j.replaced()
	if err == nil && other {
		err = j.open()
	}
	if err != nil {
		return err
	}
	return j.scan()
}

// last is the number of the last entry that was read.
func (j *journal) last() uint64 {
	if len(j.lines) == 0 {
		return 0
	}
	return j.lines[len(j.lines)-1].seq
}

// end is where the first n entries end.
func (j *journal) end(n int) int64 {
	if n == 0 {
		return j.begin
	}
	return j.lines[n-1].end
}

// after is the index of the first entry with a number above seq.
func (j *journal) after(seq uint64) int {
	return sort.Search(len(j.lines), func(i int) bool { return j.lines[i].seq > seq })
}

// following is the number of the entry behind the one with a number.
func (j *journal) following(seq uint64) uint64 {
	seq++
	i := sort.Search(len(j.removed), func(i int) bool { return j.removed[i].Last >= seq })
	if i < len(j.removed) && j.removed[i].First <= seq {
		return j.removed[i].Last + 1
	}
	return seq
}

// scan finds the lines that were added since the last scan.
func (j *journal) scan() error {
	at, seq := j.end(len(j.lines)), j.last()
	r := bufio.NewReader(io.NewSectionReader(j.file, at, 1<<62))
	for {
		n := 0
		for {
			part, err := r.ReadSlice('\n')
			n += len(part)
			if errors.Is(err, io.EOF) {
				return nil // a line that has not ended is no line yet
			}
			if err == nil {
				break
			}
			if !errors.Is(err, bufio.ErrBufferFull) {
				return err
			}
		}
		at, seq = at+int64(n), j.following(seq)
		j.lines = append(j.lines, line{seq, at})
	}
}

// lineOf is the number of the line of an entry, counted from 1, for a person.
func (j *journal) lineOf(entry int) int {
	if j.begin > 0 {
		entry++
	}
	return entry + 1
}

// read returns the entries of the lines from one index to another.
func (j *journal) read(from, to int) (text []byte, entries []builds.Entry, err error) {
	text = make([]byte, j.end(to)-j.end(from))
	if _, err := j.file.ReadAt(text, j.end(from)); err != nil {
		return nil, nil, err
	}
	for l := range bytes.Lines(text) {
		seq := j.lines[from+len(entries)].seq
		var e builds.Entry
		err := json.Unmarshal(l, &e)
		if err == nil && e.Seq != seq {
			err = fmt.Errorf("entry %d stands in its place", e.Seq)
		}
		if err != nil {
			e = builds.Entry{Seq: seq, Kind: builds.Damaged,
				Reason: fmt.Sprintf("%s:%d: %v", j.name, j.lineOf(from+len(entries)), err)}
		}
		entries = append(entries, e)
	}
	return text, entries, nil
}

// exclusive calls f while this store holds the lock of the journal and has read it to its end. s.mu
// is held.
func (s *Store) exclusive(ctx context.Context, f func(j *journal) error) error {
	for {
		var other bool // the lock is of a file that was replaced
		err := s.locked(ctx, s.journal.file, func() (err error) {
			if other, err = s.journal.replaced(); err != nil || other {
				return err
			}
			if err := s.journal.scan(); err != nil {
				return err
			}
			return f(&s.journal)
		})
		if err != nil || !other {
			return err
		}
		if err := s.journal.open(); err != nil {
			return err
		}
	}
}

// Append implements builds.Journal. It is one synced write.
func (s *Store) Append(ctx context.Context, after uint64, e builds.Entry) error {
	if e.Seq != after+1 {
		return fmt.Errorf("append after entry %d: the entry has number %d: %w", after, e.Seq,
			builder.ErrInvalid)
	}
	text, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("append after entry %d: %w", after, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err = s.exclusive(ctx, func(j *journal) error {
		if last := j.last(); last != after {
			return fmt.Errorf("the last entry is %d: %w", last, builds.ErrConflict)
		}
		at := j.end(len(j.lines))
		if err := j.file.Truncate(at); err != nil { // what a crash cut off
			return err
		}
		if _, err := j.file.WriteAt(append(text, '\n'), at); err != nil {
			return errors.Join(err, j.file.Truncate(at))
		}
		return j.file.Sync() // others may have read the line, so it stays after an error
	})
	if err != nil {
		return fmt.Errorf("append after entry %d: %w", after, err)
	}
	return nil
}

// Read implements builds.Journal. It returns at most 1000 entries.
func (s *Store) Read(ctx context.Context, after uint64) ([]builds.Entry, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.journal.current(); err != nil {
		return nil, fmt.Errorf("read after entry %d: %w", after, err)
	}
	from := s.journal.after(after)
	to := min(from+page, len(s.journal.lines))
	if from == to {
		return nil, nil
	}
	_, entries, err := s.journal.read(from, to)
	if err != nil {
		return nil, fmt.Errorf("read after entry %d: %w", after, err)
	}
	return entries, nil
}

// Wait implements builds.Journal.
func (s *Store) Wait(ctx context.Context, after uint64) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		s.mu.Lock()
		err := s.journal.current()
		last := s.journal.last()
		s.mu.Unlock()
		if err != nil {
			return fmt.Errorf("wait for entry %d: %w", after+1, err)
		}
		if last > after {
			return nil
		}
		pause(ctx, s.config.Poll)
	}
}

// Compact implements builds.Compacter. It writes a new file and renames it to the name of the old
// one, so that a crash leaves one of the two.
func (s *Store) Compact(ctx context.Context, drop func(builds.Entry) bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.exclusive(ctx, func(j *journal) error {
		kept, removed, err := j.without(ctx, drop)
		if err != nil || removed == nil {
			return err
		}
		first, err := json.Marshal(head{removed})
		if err != nil {
			return err
		}
		return replace(j.name, append(first, '\n'), kept)
	})
	if err != nil {
		return fmt.Errorf("compact the journal: %w", err)
	}
	return nil
}

// without returns the text of the entries that stay and the numbers of all that are removed, nil if
// this call removes none.
func (j *journal) without(ctx context.Context, drop func(builds.Entry) bool) (kept []byte,
	removed []span, err error) {
	var stay []uint64
	none := true
	for from := 0; from < len(j.lines); from += page {
		if ctx.Err() != nil {
			return nil, nil, context.Cause(ctx)
		}
		text, entries, err := j.read(from, min(from+page, len(j.lines)))
		if err != nil {
			return nil, nil, err
		}
		next := 0
		for l := range bytes.Lines(text) {
			e := entries[next]
			next++
			if e.Seq != j.last() && e.Kind != builds.Damaged && drop(e) {
				none = false
				continue
			}
			kept, stay = append(kept, l...), append(stay, e.Seq)
		}
	}
	if none {
		return nil, nil, nil
	}
	before := uint64(0)
	for _, seq := range stay {
		if seq > before+1 {
			removed = append(removed, span{before + 1, seq - 1})
		}
		before = seq
	}
	return kept, removed, nil
}

// replace puts a file with parts in the place of one, whole and on the disk.
func replace(name string, parts ...[]byte) error {
	f, err := os.OpenFile(name+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	for _, p := range parts {
		if err == nil {
			_, err = f.Write(p)
		}
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(name+".new"))
	}
	if err := os.Rename(name+".new", name); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
