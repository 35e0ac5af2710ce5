//go:build unix

package boltstore_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/boltstore"
)

// fill allocates until the file may not grow any more, goes on while it may not, and again when it
// may. It prints every lease that was acknowledged.
func fill(path string) error {
	signal.Ignore(syscall.SIGXFSZ) // a write beyond the limit is an error then
	s, err := boltstore.Open(path)
	if err != nil {
		return err
	}
	ctx, out := context.Background(), json.NewEncoder(os.Stdout)
	pool, _ := vip.ParsePool("p", "10.0.0.0/20")
	a, err := vip.Open(ctx, vip.Config{Store: s, Pools: []vip.Pool{pool}, DefaultTTL: vip.Forever})
	if err != nil {
		return err
	}
	allocate := func(task string) error {
		l, err := a.Allocate(ctx, vip.Request{Owner: vip.Owner{Task: task}})
		if err != nil {
			return err
		}
		return out.Encode(l)
	}
	limit := func(size uint64) error {
		return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: size,
			Max: math.MaxUint64})
	}
	file, err := os.Stat(path)
	if err == nil {
		err = limit(uint64(file.Size()))
	}
	if err != nil {
		return err
	}
	n, refused := 0, 0
	for ; refused < 10 && n < 2000; n++ {
		err := allocate(fmt.Sprint("T", n))
		switch {
		case errors.Is(err, vip.ErrUncertain) && strings.Contains(err.Error(), "file too large"):
			refused++
		case err != nil:
			return err
		}
	}
	if refused < 10 {
		return fmt.Errorf("%d of %d allocations were refused", refused, n)
	}
	if err := limit(math.MaxUint64); err != nil {
		return err
	}
	if err := a.Sweep(ctx); err != nil {
		return err
	}
	for i := range n { // refused owners get a lease now, the others have theirs
		if err := allocate(fmt.Sprint("T", i)); err != nil {
			return err
		}
	}
	return s.Close()
}

// A full disk refuses changes, and loses none that was acknowledged: when there is room the same
// allocator goes on.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "vip.db")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "FULL_DB="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	ids := map[string]string{} // by task
	for lines := json.NewDecoder(out); lines.More(); {
		var l vip.Lease
		require.NoError(t, lines.Decode(&l))
		if id, again := ids[l.Owner.Task]; again {
			require.Equal(t, id, l.ID, "task %s has two leases", l.Owner.Task)
		}
		ids[l.Owner.Task] = l.ID
	}
	require.NoError(t, cmd.Wait())

	pool, err := vip.ParsePool("p", "10.0.0.0/20")
	require.NoError(t, err)
	a, err := vip.Open(t.Context(), vip.Config{Store: open(t, path), Pools: []vip.Pool{pool}})
	require.NoError(t, err)
	leases := a.List(vip.Query{States: []vip.State{vip.Leased}})
	require.Len(t, leases, len(ids))
	for _, l := range leases {
		require.Equal(t, ids[l.Owner.Task], l.ID)
	}
}
