//go:build unix

package boltstore_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/boltstore"
)

// TestMain is also the process that gets killed: with CRASH_AT set it works on a store until then,
// and prints the acknowledged changes. With FULL_DB set it is the one whose disk is full.
func TestMain(m *testing.M) {
	if at := os.Getenv("CRASH_AT"); at != "" {
		n, _ := strconv.Atoi(at)
		if err := work(os.Getenv("CRASH_DB"), n, os.Getenv("CRASH_WHEN") == "after"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if path := os.Getenv("FULL_DB"); path != "" {
		if err := fill(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// deadly kills its own process at one write, before or after it is made.
type deadly struct {
	vip.Store
	left  int
	after bool
}

func (*deadly) Exclusive() bool { return true }

func (d *deadly) Commit(ctx context.Context, changes ...vip.Change) (uint64, error) {
	d.left--
	if d.left == 0 && !d.after {
		kill()
	}
	rev, err := d.Store.Commit(ctx, changes...)
	if d.left == 0 {
		kill()
	}
	return rev, err
}

func kill() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

func crashPool() []vip.Pool {
	p, _ := vip.ParsePool("p", "10.0.0.0/27")
	p.CoolDown = -1
	six, _ := vip.ParsePool("six", "fd00::/123")
	six.CoolDown = -1
	return []vip.Pool{p, six}
}

// work allocates, binds and releases, and prints every lease that was acknowledged.
func work(path string, at int, after bool) error {
	s, err := boltstore.Open(path)
	if err != nil {
		return err
	}
	ctx := context.Background()
	a, err := vip.Open(ctx, vip.Config{Store: &deadly{s, at, after}, Pools: crashPool(),
		DefaultTTL: vip.Forever})
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	for i := 0; ; i++ {
		l, err := a.Allocate(ctx, vip.Request{Owner: vip.Owner{Task: fmt.Sprint("T", i%20)}})
		if err != nil {
			return err
		}
		if i%4 == 1 { // an address of each family, which are given and end together
			v4, v6, err := a.AllocateDual(ctx, vip.Request{Owner: vip.Owner{
				Task: fmt.Sprint("dual-", i%3)}})
			if err != nil {
				return err
			}
			ended6, err := a.Release(ctx, v6.ID, "")
			if err != nil {
				return err
			}
			ended4, err := a.Get(ctx, v4.ID)
			if err != nil {
				return err
			}
			for _, l := range []vip.Lease{v4, v6, ended4, ended6} {
				if err := out.Encode(l); err != nil {
					return err
				}
			}
		}
		if err := out.Encode(l); err != nil {
			return err
		}
		if i%3 == 2 {
			if l, err = a.Release(ctx, l.ID, ""); err != nil {
				return err
			}
			if err := out.Encode(l); err != nil {
				return err
			}
		}
	}
}

// A process is killed at each of its first writes, before and after it reaches the disk. The
// changes acknowledged until then hold for the next one, which works on the same file.
func TestNothingAcknowledgedIsLostWhenTheProcessIsKilled(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "vip.db")
	acked := map[string]vip.Lease{} // by address
	writes, promises := 0, 0
	for at := 1; at <= 25; at++ {
		for _, when := range []string{"before", "after"} {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), "CRASH_AT="+strconv.Itoa(at), "CRASH_WHEN="+when,
				"CRASH_DB="+path)
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			for lines := bufio.NewScanner(out); lines.Scan(); promises++ {
				var l vip.Lease
				require.NoError(t, json.Unmarshal(lines.Bytes(), &l))
				acked[l.Addr.String()] = l
			}
			err = cmd.Wait()
			require.ErrorContains(t, err, "signal: killed")
			writes += at

			s, err := boltstore.Open(path)
			require.NoError(t, err)
			a, err := vip.Open(t.Context(), vip.Config{Store: s, Pools: crashPool()})
			require.NoError(t, err)
			all := a.List(vip.Query{States: []vip.State{vip.Free, vip.Leased}})
			require.NoError(t, s.Close())
			tasks, have := map[string]bool{}, map[string]vip.Lease{}
			for _, l := range all {
				have[l.Addr.String()] = l
				if l.Peer != "" {
					continue
				}
				if l.State == vip.Leased {
					require.False(t, tasks[l.Owner.Task], "task %s has two addresses", l.Owner.Task)
					tasks[l.Owner.Task] = true
				}
			}
			for _, l := range have {
				peer := have[strings.SplitN(l.Peer, "-", 2)[0]]
				require.True(t, l.Peer == "" || l.State != vip.Leased || peer.Peer == l.ID &&
					peer.State == vip.Leased, "half of a pair: %+v, %+v", l, peer)
			}
			for addr, l := range acked {
				got := have[addr]
				// one write may have been made that was not acknowledged: the next tenure, or the
				// end of this one
				if got.Generation == l.Generation && got.State == vip.Free &&
					l.State == vip.Leased || got.Generation == l.Generation+1 {
					acked[addr] = got
					continue
				}
				require.Equal(t, []any{l.ID, l.State, l.Owner.Task},
					[]any{got.ID, got.State, got.Owner.Task}, "killed %s write %d", when, at)
			}
		}
	}
	t.Logf("50 kills, %d writes, %d acknowledgements", writes, promises)
}
