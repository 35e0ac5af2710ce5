// Command promote-journal exports a promote journal and verifies an export, without a network and
// without the platform that wrote it.
//
//	promote-journal export STATE.DB > journal.jsonl
//	promote-journal verify journal.jsonl
//	promote-journal verify -heads kept.json journal.jsonl
//	promote-journal verify archive/segment-*.jsonl journal.jsonl
//
// Export reads the bbolt file of package boltjournal, which no other process may have open, and
// writes one record a line. Verify reads its files in their order, so the segments of an archive
// come first: what Promoter.Archive has moved there is not in the export. It checks the chain of each cluster and prints the heads as JSON:
// keep them elsewhere, and give them to the next verify with -heads, which then finds also a
// journal whose last entries were cut off or that was set back.
//
// It exits with 0 when all is right, with 1 when a record or a head is wrong, with 2 when a file
// cannot be read, and with 64 when the command line is wrong.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"go.etcd.io/bbolt"

	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/boltjournal"
)

// The exit codes.
const (
	wrong    = 1
	unread   = 2
	badUsage = 64 // EX_USAGE of sysexits.h
)

const usage = `usage: promote-journal export STATE.DB
       promote-journal verify [-heads KEPT.JSON] [SEGMENT.JSONL...] JOURNAL.JSONL
                              (- is the standard input)
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return badUsage
	}
	f := flag.NewFlagSet("promote-journal", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() { fmt.Fprint(stderr, usage) }
	heads := ""
	if args[0] == "verify" {
		f.StringVar(&heads, "heads", "", "")
	}
	if err := f.Parse(args[1:]); err != nil {
		return badUsage
	}
	if f.NArg() == 0 || f.NArg() > 1 && args[0] != "verify" ||
		args[0] != "export" && args[0] != "verify" {
		fmt.Fprint(stderr, usage)
		return badUsage
	}
	var err error
	if args[0] == "export" {
		err = export(ctx, f.Arg(0), stdout)
	} else {
		err = verify(f.Args(), heads, stdin, stdout)
	}
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "promote-journal:", err)
	if errors.Is(err, promote.ErrDamaged) || errors.Is(err, promote.ErrSetBack) {
		return wrong
	}
	return unread
}

// export writes the records of the bbolt file at path.
func export(ctx context.Context, path string, w io.Writer) (err error) {
	if _, err := os.Stat(path); err != nil { // bbolt would make the file
		return err
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		return fmt.Errorf("open %s: %w: end the process that has it open", path, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	journal, err := boltjournal.Open(ctx, boltjournal.Config{DB: db})
	if err != nil {
		return err
	}
	return promote.Export(ctx, w, journal)
}

// verify prints the heads of the records in the files, and compares them with the ones that were kept.
func verify(paths []string, kept string, stdin io.Reader, w io.Writer) error {
	before := map[string]promote.Head{}
	if kept != "" {
		data, err := os.ReadFile(kept)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(data, &before); err != nil {
			return fmt.Errorf("%s: %w: want the output of an earlier verify", kept, err)
		}
	}
	var data []byte
	for _, path := range paths {
		var part []byte
		var err error
		if path == "-" {
			part, err = io.ReadAll(stdin)
		} else {
			part, err = os.ReadFile(path)
		}
		if err != nil {
			return err
		}
		data = append(data, part...)
	}
	heads, err := promote.Verify(bytes.NewReader(data))
	if err == nil {
		err = compare(before, heads, data)
	}
	text, failed := json.MarshalIndent(heads, "", "  ")
	if failed == nil {
		_, failed = fmt.Fprintf(w, "%s\n", text)
	}
	return errors.Join(err, failed)
}

// compare says for which clusters the journal does not go on from the head that was kept.
func compare(before, now map[string]promote.Head, data []byte) error {
	var problems []error
	for _, cluster := range slices.Sorted(maps.Keys(before)) {
		was, is := before[cluster], now[cluster]
		switch {
		case is.Seq < was.Seq:
			problems = append(problems, fmt.Errorf("cluster %s: ends at entry %d, and had %d: %w",
				cluster, is.Seq, was.Seq, promote.ErrSetBack))
		case is.Seq > was.Seq && other(data, cluster, was), is.Seq == was.Seq &&
			is.Chain != was.Chain:
			problems = append(problems, fmt.Errorf("cluster %s: entry %d is another one than the "+
				"head that was kept: %w", cluster, was.Seq, promote.ErrSetBack))
		}
	}
	return errors.Join(problems...)
}

// head is the part of a record that other compares, or the record of a line of a segment.
type head struct {
	Cluster string
	Seq     uint64
	Chain   string
	Record  *head
}

// other reports whether the entry of the cluster at the head that was kept has another chain now.
// Entries that were written before the chain have none: the chain of a later one covers them.
func other(data []byte, cluster string, was promote.Head) bool {
	for line := range bytes.Lines(data) {
		e := head{Record: &head{}}
		if json.Unmarshal(line, &e) != nil {
			continue
		}
		if e.Seq == 0 { // of a segment
			e = *e.Record
		}
		if e.Cluster == cluster && e.Seq == was.Seq {
			return e.Chain != "" && e.Chain != was.Chain
		}
	}
	return true
}
