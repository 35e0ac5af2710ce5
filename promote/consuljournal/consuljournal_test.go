//go:build linux

package consuljournal_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/soak"
	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/consul"
	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/consuljournal"
	"github.com/sluice-deploy/sluice/promote/journaltest"
	"github.com/sluice-deploy/sluice/promote/ownerstest"
)

// open returns a journal under a prefix of its own, which is removed afterwards: the server may
// have other users.
func open(t testing.TB, client *api.Client, cfg consuljournal.Config) *consuljournal.Journal {
	t.Helper()
	if cfg.Prefix == "" {
		cfg.Prefix = "sluice-test/" + rand.Text() + "/"
		t.Cleanup(func() { _, _ = client.KV().DeleteTree(cfg.Prefix, nil) })
	}
	cfg.Client = client
	j, err := consuljournal.New(cfg)
	require.NoError(t, err)
	return j
}

func TestJournal(t *testing.T) {
	t.Parallel()
	server := consul.Start(t)
	t.Run("contract", func(t *testing.T) {
		journaltest.Run(t, func(t *testing.T) promote.Journal {
			return open(t, server.Client, consuljournal.Config{})
		})
	})
}

func TestTrim(t *testing.T) {
	t.Parallel()
	server := consul.Start(t)
	t.Run("contract", func(t *testing.T) {
		journaltest.RunTrimmer(t, func(t *testing.T) promote.Trimmer {
			return open(t, server.Client, consuljournal.Config{})
		})
	})
}

func TestOwners(t *testing.T) {
	t.Parallel()
	server := consul.Start(t)
	t.Run("contract", func(t *testing.T) {
		ownerstest.Run(t, func(t *testing.T) ownerstest.Harness {
			cfg := consuljournal.OwnersConfig{Client: server.Client,
				Prefix: "sluice-test/" + rand.Text() + "/", TTL: 10 * time.Second}
			a, err := consuljournal.NewOwners(cfg)
			require.NoError(t, err)
			b, err := consuljournal.NewOwners(cfg)
			require.NoError(t, err)
			return ownerstest.Harness{Owners: a, Other: b}
		})
	})
}

// TestTenureEndsWithItsSession: Consul has ended the session, as it does after the TTL.
func TestTenureEndsWithItsSession(t *testing.T) {
	t.Parallel()
	server := consul.Start(t)
	var seen observed
	var log bytes.Buffer
	o, err := consuljournal.NewOwners(consuljournal.OwnersConfig{Client: server.Client,
		TTL: 10 * time.Second, Observe: seen.add, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, err)
	tenure, err := o.Join(t.Context(), "a")
	require.NoError(t, err)
	pair, _, err := server.Client.KV().Get("promote/owners/a", nil)
	require.NoError(t, err)
	_, err = server.Client.Session().Destroy(pair.Session, nil)
	require.NoError(t, err)
	select {
	case <-tenure.Done():
		require.ErrorIs(t, context.Cause(tenure), promote.ErrFenced)
	case <-time.After(time.Minute):
		t.Fatal("the tenure has not ended")
	}
	lives, err := o.Lives(t.Context(), "a")
	require.NoError(t, err)
	require.False(t, lives)
	require.Equal(t, []string{"join", "renew", "lives"}, slices.Compact(seen.ops()))
	require.Contains(t, log.String(), "owner a: its session has ended: fenced")
}

func TestTooLargeAnEntry(t *testing.T) {
	t.Parallel()
	var seen observed
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	j := open(t, consul.Start(t).Client, consuljournal.Config{Observe: seen.add,
		Now: func() time.Time {
			now = now.Add(time.Second)
			return now
		}})
	_, err := j.Append(t.Context(), promote.Entry{Seq: 1, Reason: strings.Repeat("x", 512<<10)})
	require.ErrorIs(t, err, promote.ErrTooLarge)
	at, err := j.Append(t.Context(), promote.Entry{Seq: 1, Reason: strings.Repeat("x", 380<<10)})
	require.NoError(t, err)
	require.NoError(t, j.Wait(t.Context(), at-1))
	_, err = j.Read(t.Context(), at)
	require.NoError(t, err)
	require.Equal(t, []string{"append", "append", "wait", "read"}, seen.ops())
	require.ErrorIs(t, seen.calls[0].err, promote.ErrTooLarge)
	for _, c := range seen.calls {
		require.Equal(t, time.Second, c.took, c.op)
	}
}

// observed gathers the calls of Observe.
type observed struct {
	mu    sync.Mutex
	calls []call
}

type call struct {
	op   string
	took time.Duration
	err  error
}

func (o *observed) add(op string, took time.Duration, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.calls = append(o.calls, call{op, took, err})
}

func (o *observed) ops() (list []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range o.calls {
		list = append(list, c.op)
	}
	return list
}

// willing is a Deployer that does everything at once.
type willing struct{}

func (willing) Deploy(context.Context, promote.Deployment) error { return nil }
func (willing) Remove(context.Context, promote.Deployment) error { return nil }

func promoter(t *testing.T, j promote.Journal) *promote.Promoter {
	t.Helper()
	p, err := promote.New(promote.Config{Journal: j, Deployer: willing{}})
	require.NoError(t, err)
	return p
}

func binding(cluster string, n int) promote.Binding {
	return promote.Binding{Cluster: cluster, Version: fmt.Sprint("v", n), Actor: "ci",
		Digest:     promote.Digest(fmt.Sprintf("sha256:%064x", n)),
		Repository: "registry:5000/" + cluster}
}

// TestDamagedRecord: the value of one key is changed, and one is deleted. The other clusters go on.
func TestDamagedRecord(t *testing.T) {
	t.Parallel()
	server := consul.Start(t)
	prefix := "sluice-test/" + rand.Text() + "/"
	j := open(t, server.Client, consuljournal.Config{Prefix: prefix})
	p := promoter(t, j)
	for n := range 3 {
		for _, cluster := range []string{"web", "api", "db"} {
			require.NoError(t, p.Bind(t.Context(), binding(cluster, n)))
		}
	}
	key := func(cluster string) string {
		return prefix + "entries/" + cluster + "/00000000000000000002"
	}
	_, err := server.Client.KV().Put(&api.KVPair{Key: key("web"), Value: []byte("{")}, nil)
	require.NoError(t, err)
	_, err = server.Client.KV().Delete(key("api"), nil)
	require.NoError(t, err)
	p = promoter(t, open(t, server.Client, consuljournal.Config{Prefix: prefix}))
	require.NoError(t, p.Bind(t.Context(), binding("db", 7)))
	for _, cluster := range []string{"web", "api"} {
		err := p.Bind(t.Context(), binding(cluster, 7))
		require.ErrorIs(t, err, promote.ErrDamaged)
		require.ErrorContains(t, err, fmt.Sprintf("cluster %q: entry", cluster))
	}
}

// TestRestoredSnapshot: entries that were acknowledged are lost. A Promoter that has read them says
// so before it writes anything, and a new one goes on from what is left.
func TestRestoredSnapshot(t *testing.T) {
	t.Parallel()
	server := consul.Start(t)
	if server.Process == nil {
		require.Fail(t, "the test needs a server of its own: unset CONSUL_HTTP_ADDR")
	}
	j := open(t, server.Client, consuljournal.Config{})
	a := promoter(t, j)
	b := promoter(t, open(t, server.Client, consuljournal.Config{Prefix: "other/"}))
	require.NoError(t, a.Bind(t.Context(), binding("web", 1)))
	require.NoError(t, b.Bind(t.Context(), binding("web", 1)))
	snapshot := server.Snapshot(t)
	require.NoError(t, a.Bind(t.Context(), binding("web", 2)))
	require.NoError(t, b.Bind(t.Context(), binding("web", 2)))

	waiting := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	entries, err := j.Read(t.Context(), 0)
	require.NoError(t, err)
	go func() { waiting <- j.Wait(ctx, entries[len(entries)-1].At) }()
	server.Restore(t, snapshot)

	require.ErrorIs(t, a.Bind(t.Context(), binding("web", 3)), promote.ErrSetBack,
		"nothing has been written since")
	next := promoter(t, j)
	require.NoError(t, next.Bind(t.Context(), binding("web", 4)))
	require.NoError(t, <-waiting, "a wait goes on after the index went back")
	err = a.Bind(t.Context(), binding("web", 3))
	require.ErrorIs(t, err, promote.ErrSetBack)
	require.ErrorContains(t, err, "another content than before")
	versions, err := next.Bindings(t.Context(), "web")
	require.NoError(t, err)
	require.Len(t, versions, 2)

	third := promoter(t, open(t, server.Client, consuljournal.Config{Prefix: "other/"}))
	require.NoError(t, third.Bind(t.Context(), binding("api", 1)))
	require.ErrorIs(t, b.Bind(t.Context(), binding("web", 3)), promote.ErrSetBack)
}

// acknowledged lets one writer for each member append to a cluster of its own until stop, and
// returns the entries whose Append returned nil.
func acknowledged(t *testing.T, members []*consul.Member, prefix string,
	during func()) map[string]uint64 {
	t.Helper()
	var wg sync.WaitGroup
	var mu sync.Mutex
	last := map[string]uint64{}
	stop := make(chan struct{})
	for i, m := range members {
		j := open(t, m.Client, consuljournal.Config{Prefix: prefix, Patience: time.Second})
		wg.Go(func() {
			cluster := fmt.Sprint("c", i)
			for seq := uint64(1); ; {
				select {
				case <-stop:
					return
				default:
				}
				e := promote.Entry{Seq: seq, Target: promote.Target{Cluster: cluster}}
				_, err := j.Append(t.Context(), e)
				if errors.Is(err, promote.ErrConflict) {
					seq++ // an append without an answer was made
					continue
				}
				if err == nil {
					mu.Lock()
					last[cluster] = seq
					mu.Unlock()
					seq++
				}
			}
		})
	}
	during()
	close(stop)
	wg.Wait()
	return last
}

// TestThreeServers kills the leader, then parts it from the others: each acknowledged entry is
// there afterwards, and none was acknowledged twice.
func TestThreeServers(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(*consul.Cluster, *consul.Member){
		"leader is killed": func(c *consul.Cluster, leader *consul.Member) {
			leader.Process.Kill()
			c.Leader(t)
			require.NoError(t, leader.Process.Begin())
		},
		"leader is parted from the others": func(c *consul.Cluster, leader *consul.Member) {
			for _, m := range c.Others(leader) {
				leader.Part(m.Host)
			}
			c.Leader(t)
			leader.Heal()
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := consul.StartCluster(t, 3)
			prefix := "journal/"
			last := acknowledged(t, c.Members, prefix, func() {
				for range soak.Count(1, 5) {
					harm(c, c.Leader(t))
				}
			})
			testbed.Poll(t, "the entries on each server", func() error {
				for _, m := range c.Members {
					j := open(t, m.Client, consuljournal.Config{Prefix: prefix})
					entries, err := j.Read(t.Context(), 0)
					if err != nil {
						return err
					}
					next := map[string]uint64{}
					for _, e := range entries {
						if next[e.Cluster]++; e.Seq != next[e.Cluster] {
							return fmt.Errorf("%s: entry %d stands where %d should", e.Cluster,
								e.Seq, next[e.Cluster])
						}
					}
					for cluster, seq := range last {
						if next[cluster] < seq {
							return fmt.Errorf("%s: entry %d was acknowledged, and %d is the last",
								cluster, seq, next[cluster])
						}
					}
				}
				return nil
			})
			require.NotEmpty(t, last)
		})
	}
}
