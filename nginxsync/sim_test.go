package nginxsync

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/sluice-deploy/sluice/internal/soak"
)

// simNginx is an Nginx that fails when it is told to, and starts again with routes that it had
// before, as from a state file.
type simNginx struct {
	rand   *rand.Rand
	faulty bool
	routes Routes
	old    Routes
	epoch  uint64
	writer string
}

var errSim = errors.New("simulated")

func (n *simNginx) fails(p float64) bool { return n.faulty && n.rand.Float64() < p }

func (n *simNginx) Apply(_ context.Context, d Delta) error {
	if n.fails(0.1) {
		return errSim
	}
	if d.Epoch < n.epoch || d.Epoch == n.epoch && d.Writer != n.writer {
		return ErrFenced
	}
	next, err := n.routes.Apply(d)
	if err != nil {
		return err
	}
	n.old, n.routes, n.epoch, n.writer = n.routes, next, d.Epoch, d.Writer
	if n.fails(0.1) {
		return errSim // the answer is lost
	}
	return nil
}

func (n *simNginx) State(context.Context) (DriverState, error) {
	if n.fails(0.1) {
		return DriverState{}, errSim
	}
	s := DriverState{Applied: n.routes.Generation, Epoch: n.epoch, Writer: n.writer}
	for i := range 2 {
		w := Worker{Slot: i, PID: i + 1, Applied: n.routes.Generation}
		if n.fails(0.2) {
			w.Applied = n.old.Generation
		}
		s.Workers = append(s.Workers, w)
	}
	return s, nil
}

func (n *simNginx) Routes(context.Context) (Routes, error) {
	if n.fails(0.1) {
		return Routes{}, errSim
	}
	return n.routes, nil
}

// restart loses the term, and now and then the newest routes.
func (n *simNginx) restart() {
	n.epoch, n.writer = 0, ""
	if n.rand.IntN(2) == 0 && n.old.Generation != (Generation{}) {
		n.routes = n.old
	}
}

type noSource struct{}

func (noSource) Watch(ctx context.Context, _ uint64) (Snapshot, uint64, error) {
	<-ctx.Done()
	return Snapshot{}, 0, context.Cause(ctx)
}

// simWorld is the truth that the platform wants, and what the source says of it.
type simWorld struct {
	rand     *rand.Rand
	truth    Snapshot
	revision uint64
	serial   int
}

func (w *simWorld) instances(n int) (list []Instance) {
	for range n {
		w.serial++
		list = append(list, Instance{ID: fmt.Sprint("i", w.serial), Version: fmt.Sprint("v",
			w.serial), Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 2, 3}),
			uint16(w.serial%60000+1)), Weight: 1})
	}
	return list
}

// change makes one change of the truth, with its plan, and returns the snapshot.
func (w *simWorld) change() Snapshot {
	next := Snapshot{Baseline: maps.Clone(w.truth.Baseline),
		Overlays: maps.Clone(w.truth.Overlays)}
	cluster := fmt.Sprint("c", w.rand.IntN(5))
	addr := netip.AddrFrom4([4]byte{10, 0, 0, byte(w.rand.IntN(4))})
	switch w.rand.IntN(5) {
	case 0:
		delete(next.Baseline, cluster)
		next.Planned = []Intent{{Cluster: cluster}}
	case 1:
		delete(next.Overlays, addr)
		next.Planned = []Intent{{VIP: addr}}
	case 2:
		next.Overlays[addr] = map[string][]Instance{cluster: w.instances(1)}
		next.Planned = []Intent{{VIP: addr}}
	default:
		next.Baseline[cluster] = w.instances(1 + w.rand.IntN(4))
		next.Planned = []Intent{{Cluster: cluster}}
	}
	w.truth = next
	return next
}

// lie is the snapshot of a source that has lost something.
func (w *simWorld) lie() Snapshot {
	s := Snapshot{Baseline: map[string][]Instance{}}
	if w.rand.IntN(2) == 0 {
		return s
	}
	for cluster, list := range w.truth.Baseline {
		if w.rand.IntN(2) == 0 {
			s.Baseline[cluster] = list[:1]
		}
	}
	return s
}

// Over many orders of changes, lies of the source, failures and starts of Nginx and of the agent:
// a lie never takes the last instance of a cluster away, and when all is well again Nginx has what
// the platform wants.
func TestSimulation(t *testing.T) {
	t.Parallel()
	for seed := range soak.Count(300, 20_000) {
		if !simulate(t, uint64(seed)) {
			t.Fatalf("seed %d", seed)
		}
	}
}

func simulate(t *testing.T, seed uint64) bool {
	random := rand.New(rand.NewPCG(seed, 1))
	nginx := &simNginx{rand: random, faulty: true}
	now := time.Unix(1_700_000_000, 0)
	world := &simWorld{rand: random, truth: Snapshot{Baseline: map[string][]Instance{},
		Overlays: map[netip.Addr]map[string][]Instance{}}}
	start := func() *runner {
		a, err := OpenAgent(t.Context(), Config{Source: noSource{}, Driver: nginx,
			Now: func() time.Time { return now }})
		if err != nil {
			t.Fatal(err)
		}
		return &runner{Agent: a, table: newTable(a.cfg.Guard), seen: map[SetAside]bool{}}
	}
	give := func(r *runner, s Snapshot) {
		world.revision++
		r.next = &revised{s, world.revision}
	}
	r := start()
	lying := false
	served := map[string]bool{} // clusters that were in force and are wanted
	for range 60 {
		now = now.Add(time.Duration(random.IntN(60)) * time.Second)
		switch op := random.IntN(10); {
		case op < 3 && !lying:
			give(r, world.change())
		case op == 3:
			give(r, world.lie())
			lying = true
		case op == 4 && lying:
			// The plans of changes that the agent may have missed go on.
			back := world.truth
			back.Planned = everyPlan()
			give(r, back)
			lying = false
		case op == 5:
			nginx.restart()
		case op == 6 && !lying && r.next == nil:
			r = start()
			back := world.truth
			back.Planned = everyPlan()
			give(r, back)
		case op == 6:
			r = start() // and the source is silent, or lies
			if lying {
				give(r, world.lie())
			}
		}
		clear(served)
		for cluster, list := range nginx.routes.Snapshot.Baseline {
			if len(list) > 0 && len(world.truth.Baseline[cluster]) > 0 {
				served[cluster] = true
			}
		}
		_, _ = r.step(t.Context())
		for cluster := range served {
			if len(nginx.routes.Snapshot.Baseline[cluster]) == 0 {
				t.Errorf("cluster %s lost its last instance", cluster)
				return false
			}
		}
	}
	nginx.faulty = false
	back := world.truth
	back.Planned = everyPlan()
	r = start() // a fenced one would stay so
	give(r, back)
	for range 20 {
		now = now.Add(time.Second)
		if done, err := r.step(t.Context()); err == nil && done && r.table.revision ==
			world.revision {
			break
		}
	}
	if !nginx.routes.Snapshot.Equal(world.truth) {
		t.Errorf("nginx has %+v, want %+v, held %v", nginx.routes.Snapshot, world.truth,
			r.table.heldList())
		return false
	}
	return true
}

// everyPlan covers each change that the world may have made.
func everyPlan() (all []Intent) {
	for i := range 5 {
		all = append(all, Intent{Cluster: fmt.Sprint("c", i)},
			Intent{VIP: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})})
	}
	return all
}
