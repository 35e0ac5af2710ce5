package boltjournal_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/boltjournal"
)

func Example() {
	ctx := context.Background()
	dir, _ := os.MkdirTemp("", "")
	defer os.RemoveAll(dir)
	j, err := boltjournal.Open(ctx, boltjournal.Config{Path: filepath.Join(dir, "journal.db")})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer j.Close()
	_, _ = j.Append(ctx, promote.Entry{Seq: 1, Kind: promote.Bound,
		Target: promote.Target{Cluster: "hello_web"}, Version: "v1"})
	_, err = j.Append(ctx, promote.Entry{Seq: 1, Kind: promote.Bound,
		Target: promote.Target{Cluster: "hello_web"}, Version: "v2"})
	fmt.Println(errors.Is(err, promote.ErrConflict), err)
	entries, _ := j.Read(ctx, 0)
	fmt.Println(len(entries), entries[0].Version)
	// Output:
	// true append entry 1 of cluster "hello_web": its last one is 1: conflict
	// 1 v1
}
