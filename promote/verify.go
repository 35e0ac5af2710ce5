package promote

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/sluice-deploy/sluice/internal/names"
)

// mostWrong is how many wrong lines Verify names.
const mostWrong = 100

// Export writes every entry of the journal in the order of At, one record a line. An entry that
// the journal cannot read is left out and named in the error, after the others are written.
func Export(ctx context.Context, w io.Writer, j Journal) error {
	out := bufio.NewWriter(w)
	var damaged []error
	for after := uint64(0); ; {
		entries, err := j.Read(ctx, after)
		if err != nil {
			return fmt.Errorf("export after position %d: %w", after, withCause(ctx, err))
		}
		if len(entries) == 0 {
			return errors.Join(append(damaged, out.Flush())...)
		}
		for _, e := range entries {
			after = e.At
			if e.Damage != "" {
				damaged = append(damaged, fmt.Errorf("export cluster %s: entry %d at position %d: "+
					"%s: %w", names.Quote(e.Cluster), e.Seq, e.At, e.Damage, ErrDamaged))
				continue
			}
			record, err := e.Record()
			if err != nil {
				return fmt.Errorf("export entry %d at position %d: %w", e.Seq, e.At, err)
			}
			if _, err := out.Write(append(record, '\n')); err != nil {
				return fmt.Errorf("export: %w", err)
			}
		}
	}
}

// Verify reads records, one a line, as Export writes them, or segments of an Archive in their order
// and then the rest of the journal, and returns the head of each cluster. It needs neither the
// journal nor a network. It finds every record that was changed, left out, put in or moved within
// its cluster, except where the last ones of a cluster are missing: that shows in the head, which
// has to be compared with one that was kept elsewhere. The error wraps ErrDamaged and names the
// first wrong line of each run of them in a cluster, up to 100 in all. A record that does not
// follow the last good one of its cluster is not believed: the head stays at that one.
func Verify(r io.Reader) (map[string]Head, error) {
	heads, failing := map[string]Head{}, map[string]bool{}
	var wrong []error
	lines := bufio.NewReaderSize(r, 1<<16)
	for number := 1; ; number++ {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF && len(line) == 0 {
			break
		}
		switch {
		case err == io.EOF:
			err = fmt.Errorf("it has no end: the file was cut off: %w", ErrDamaged)
		case err != nil:
			return heads, fmt.Errorf("verify: line %d: %w", number, err)
		default:
			err = verifyLine(recordIn(line[:len(line)-1]), heads, failing)
		}
		if err == nil {
			continue
		}
		if wrong = append(wrong, fmt.Errorf("verify: line %d: %w", number, err)); len(wrong) ==
			mostWrong {
			break
		}
	}
	return heads, errors.Join(wrong...)
}

// verifyLine takes one record in. It returns nil for further records of a cluster that is failing.
func verifyLine(record []byte, heads map[string]Head, failing map[string]bool) error {
	body, chain := cutChain(record)
	at, err := placeIn(record, chain != "")
	if err != nil {
		return fmt.Errorf("%w: %w", err, ErrDamaged)
	}
	head, err := heads[at.Cluster].next(at.Seq, chain, body)
	if err == nil {
		heads[at.Cluster], failing[at.Cluster] = head, false
		return nil
	}
	if failing[at.Cluster] {
		return nil
	}
	failing[at.Cluster] = true
	return fmt.Errorf("cluster %s: %w: %w", names.Quote(at.Cluster), err, ErrDamaged)
}
