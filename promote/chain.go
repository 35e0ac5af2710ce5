package promote

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/sluice-deploy/sluice/internal/names"
)

// EntryFormat is the newest format of an entry that this program understands: see Entry.Needs.
const EntryFormat = 3

// The EntryFormat from which on programs know a kind of entry.
const (
	formatAdopted    = 2
	formatProgressed = 2
)

// Head is the end of one cluster's entries: the Seq and the Chain of the last one. The zero Head is
// that of a cluster without entries.
type Head struct {
	Seq   uint64 `json:"seq"`
	Chain string `json:"chain"`

	sealed bool // the last entry has a chain
}

// A record ends in its chain: 64 hexadecimal digits between chainOpens and chainCloses.
const (
	chainOpens  = `,"chain":"`
	chainCloses = `"}`
	chainLength = len(chainOpens) + 2*sha256.Size + len(chainCloses)
)

// Record returns e as a journal keeps it and Export writes it: JSON without At and Damage, whose
// last member is the chain.
func (e Entry) Record() ([]byte, error) {
	e.At, e.Damage = 0, ""
	return json.Marshal(e)
}

// ParseRecord returns the entry of a record, with everything that it does not know left out.
func ParseRecord(record []byte) (Entry, error) {
	var e Entry
	if err := json.Unmarshal(record, &e); err != nil {
		return Entry{}, fmt.Errorf("record of %d bytes: %w: %w", len(record), err, ErrDamaged)
	}
	e.At, e.Damage = 0, ""
	return e, nil
}

// cutChain returns a record without its chain, and the chain; that is empty for a record of a
// program that wrote none.
func cutChain(record []byte) (body []byte, chain string) {
	at := len(record) - chainLength
	if at < 0 || !bytes.HasPrefix(record[at:], []byte(chainOpens)) ||
		!bytes.HasSuffix(record, []byte(chainCloses)) {
		return record, ""
	}
	chain = string(record[at+len(chainOpens) : len(record)-len(chainCloses)])
	return append(record[:at:at], '}'), chain
}

// link returns the chain of a record after prev: SHA-256 in hexadecimal digits of the digits of
// prev, none for the first record of a cluster, and of the record without its chain.
func link(prev string, body []byte) string {
	hash := sha256.New()
	_, _ = io.WriteString(hash, prev)
	_, _ = hash.Write(body)
	return hex.EncodeToString(hash.Sum(nil))
}

// seal gives e the chain that it has after prev. The texts of e become valid UTF-8, so that they
// read back as they are written.
func (e *Entry) seal(prev string) (err error) {
	for _, text := range []*string{&e.Cluster, &e.Environment, &e.Task, &e.Version, &e.Repository,
		&e.Actor, &e.Key, &e.Reason, &e.Error, &e.Owner, &e.Policy, &e.Note, &e.Doubt,
		(*string)(&e.Op), (*string)(&e.Digest), (*string)(&e.Previous)} {
		*text = strings.ToValidUTF8(*text, "\uFFFD")
	}
	if len(e.Facts) > 0 {
		facts := make(map[string]string, len(e.Facts))
		for name, fact := range e.Facts {
			facts[strings.ToValidUTF8(name, "\uFFFD")] = strings.ToValidUTF8(fact, "\uFFFD")
		}
		e.Facts = facts
	}
	e.Chain = ""
	body, err := e.Record()
	e.Chain = link(prev, body)
	return err
}

// After returns the head of a cluster whose entries ended at h once it has e. An entry with a
// number that does not follow wraps ErrConflict, one whose content does not fit its chain
// ErrDamaged. Entries without a chain, which programs before the chain wrote, may leave numbers
// out, and come before all that have one.
func (e Entry) After(h Head) (Head, error) {
	chain := e.Chain
	e.Chain = ""
	body, err := e.Record()
	if err != nil {
		return Head{}, err
	}
	return h.next(e.Seq, chain, body)
}

// next is the head after h and the record with that number, chain and body.
func (h Head) next(seq uint64, chain string, body []byte) (Head, error) {
	switch now := link(h.Chain, body); {
	case seq <= h.Seq || seq != h.Seq+1 && chain != "":
		return Head{}, fmt.Errorf("entry %d follows entry %d: %w", seq, h.Seq, ErrConflict)
	case chain == "" && h.sealed:
		return Head{}, fmt.Errorf("entry %d has no chain, and the one before it has: %w", seq,
			ErrDamaged)
	case chain != "" && chain != now:
		return Head{}, fmt.Errorf("entry %d: its content after entry %d has the chain %.12s, and "+
			"%.12s is written in it: one of the two entries was changed: %w", seq, h.Seq, now,
			names.Quote(chain), ErrDamaged)
	default:
		return Head{Seq: seq, Chain: now, sealed: chain != ""}, nil
	}
}
