//go:build linux

package consulstore_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/consul"
	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/consulstore"
)

var pause = flag.Duration("pause", 30*time.Second, "how long TestPausedProcessIsFenced stops a "+
	"process, at least until its lease is over")

// ttl of the lease of the process that is stopped: it has to get as far as that before.
const ttl = 20 * time.Second

// TestMain is also the process that is stopped: with SLUICE_HOLDER set it holds a lease until it is
// fenced.
func TestMain(m *testing.M) {
	if when := os.Getenv("SLUICE_HOLDER"); when != "" {
		if err := hold(context.Background(), when); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// sleeper stops its own process at one commit: when all has been decided and nothing sent, or when
// the answer is there and has not been read.
type sleeper struct {
	vip.Store
	left int
	when string
}

func (s *sleeper) Commit(ctx context.Context, changes ...vip.Change) (uint64, error) {
	s.left--
	if s.left == 0 && s.when == "before" {
		stop()
	}
	rev, err := s.Store.Commit(ctx, changes...)
	if s.left == 0 && s.when == "after" {
		stop()
	}
	return rev, err
}

func stop() { _ = syscall.Kill(os.Getpid(), syscall.SIGSTOP) }

func one() []vip.Pool {
	p, _ := vip.ParsePool("p", "10.0.0.1")
	p.CoolDown = time.Second
	return []vip.Pool{p}
}

// hold takes the only address, prints the lease, and binds it until that fails. It prints why.
func hold(ctx context.Context, when string) error {
	client, err := api.NewClient(api.DefaultConfig())
	if err != nil {
		return err
	}
	s, err := consulstore.New(client, consulstore.Config{Prefix: os.Getenv("SLUICE_PREFIX")})
	if err != nil {
		return err
	}
	const epoch, allocate, bind = 1, 1, 2 // commits
	a, err := vip.Open(ctx, vip.Config{Store: &sleeper{s, epoch + allocate + bind, when},
		Pools: one()})
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	l, err := a.Allocate(ctx, vip.Request{Owner: vip.Owner{Task: "holder"}, TTL: ttl})
	if err != nil {
		return err
	}
	if err := out.Encode(l); err != nil {
		return err
	}
	for i := 0; ; i++ {
		at := netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(i+1))
		if _, err := a.Bind(ctx, l.ID,
			[]vip.Instance{{ID: "of-the-holder", Addr: at}}); err != nil {
			return out.Encode(map[string]any{"fenced": errors.Is(err, vip.ErrFenced),
				"error": err.Error()})
		}
	}
}

// A process that is stopped in the middle of a change, for longer than its lease lasts, finds its
// address in other hands when it goes on: it gets an error, and has changed nothing.
func TestPausedProcessIsFenced(t *testing.T) {
	t.Parallel()
	server := consul.Start(t)
	for _, when := range []string{"before", "after"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			prefix := fmt.Sprintf("sluice-test/paused-%s-%d/", when, os.Getpid())
			store := open(t, server, consulstore.Config{Prefix: prefix})
			holder := exec.Command(os.Args[0])
			holder.Env = append(os.Environ(), "SLUICE_HOLDER="+when, "SLUICE_PREFIX="+prefix,
				api.HTTPAddrEnvName+"="+server.Addr)
			holder.Stderr = os.Stderr
			out, err := holder.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, holder.Start())
			t.Cleanup(func() { _ = holder.Process.Kill() })
			lines := bufio.NewScanner(out)
			require.True(t, lines.Scan(), lines.Err())
			var held vip.Lease
			require.NoError(t, json.Unmarshal(lines.Bytes(), &held))

			stopped := time.Now()
			testbed.Poll(t, "the holder to be stopped", func() error {
				stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", holder.Process.Pid))
				if err == nil && !strings.Contains(string(stat), ") T ") {
					err = errors.New("it runs")
				}
				return err
			})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			a, err := vip.Open(ctx, vip.Config{Store: store, Pools: one()})
			require.NoError(t, err)
			go func() { _ = a.Run(ctx) }()
			got, err := a.Allocate(ctx, vip.Request{Owner: vip.Owner{Task: "next"}, Wait: true})
			require.NoError(t, err)
			require.Equal(t, held.Addr, got.Addr)
			bound, err := a.Bind(ctx, got.ID,
				[]vip.Instance{{ID: "of-the-next", Addr: netip.MustParseAddrPort("192.0.2.2:80")}})
			require.NoError(t, err)
			time.Sleep(time.Until(stopped.Add(*pause)))

			require.NoError(t, holder.Process.Signal(syscall.SIGCONT))
			require.True(t, lines.Scan(), lines.Err())
			var end struct {
				Fenced bool
				Error  string
			}
			require.NoError(t, json.Unmarshal(lines.Bytes(), &end))
			require.True(t, end.Fenced, end.Error)
			require.NoError(t, holder.Wait())
			t.Logf("stopped for %s: %s", time.Since(stopped).Round(time.Second), end.Error)
			fresh, err := vip.Open(ctx, vip.Config{Store: store, Pools: one()})
			require.NoError(t, err)
			require.Equal(t, []vip.Lease{bound}, fresh.List(vip.Query{}))
		})
	}
}
