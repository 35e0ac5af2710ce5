package linearizable_test

import (
	"context"
	"errors"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/linearizable"
	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/boltstore"
)

// One allocator, or several that share a store, whose callers all call at once.
func TestStores(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		allocators int
		lost       bool
		open       func(t *testing.T) vip.Store
	}{
		"memory": {1, false, func(*testing.T) vip.Store { return vip.NewMemStore() }},
		"shared": {3, false, func(*testing.T) vip.Store { return vip.NewMemStore() }},
		"lost": {1, false, func(*testing.T) vip.Store {
			return &forgetful{Store: vip.NewMemStore()}
		}},
		"lost, shared": {3, true, func(*testing.T) vip.Store {
			return &forgetful{Store: vip.NewMemStore()}
		}},
		"bbolt": {1, false, func(t *testing.T) vip.Store {
			s, err := boltstore.Open(filepath.Join(t.TempDir(), "vip.db"))
			require.NoError(t, err)
			t.Cleanup(func() { _ = s.Close() })
			return s
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var total linearizable.Counts
			for seed := range uint64(10) {
				load := linearizable.Load{Seed: seed, Callers: 6, Calls: 40, Tasks: 7, Size: 4,
					Lost: test.lost}
				store := test.open(t)
				var all []*vip.Allocator
				for range test.allocators {
					cfg := vip.Config{Refresh: time.Millisecond}
					if cfg.Store = store; test.allocators > 1 {
						cfg.Store = vip.Shared(store)
					}
					cfg.Pools = []vip.Pool{load.Pool()}
					a, err := vip.Open(t.Context(), cfg)
					require.NoError(t, err)
					all = append(all, a)
				}
				total.Add(linearizable.Check(t, all, load))
			}
			t.Logf("%+v", total)
			require.NotZero(t, total.Allocated)
			require.Zero(t, total.Unknown)
		})
	}
}

// forgetful makes commits and then fails to say so, one in four.
type forgetful struct {
	vip.Store
	n atomic.Uint64
}

func (*forgetful) Exclusive() bool { return true }

func (f *forgetful) Commit(ctx context.Context, changes ...vip.Change) (uint64, error) {
	rev, err := f.Store.Commit(ctx, changes...)
	if err == nil && f.n.Add(1)%4 == 0 {
		runtime.Gosched() // so that others get on meanwhile
		return 0, errors.New("the answer is lost")
	}
	return rev, err
}
