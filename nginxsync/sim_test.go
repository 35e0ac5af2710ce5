package nginxsync

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/sluice-deploy/sluice/internal/soak"
)

type noSource struct{}

func (noSource) Watch(ctx context.Context, _ uint64) (Snapshot, uint64, error) {
	<-ctx.Done()
	return Snapshot{}, 0, context.Cause(ctx)
}

// simWorld is the truth that the platform wants, and the word of the source about it.
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
	for _, cluster := range slices.Sorted(maps.Keys(w.truth.Baseline)) { // the same by one seed
		if w.rand.IntN(2) == 0 {
			s.Baseline[cluster] = w.truth.Baseline[cluster][:1]
		}
	}
	return s
}

// simulation is a run of agents, Nginx and the world by one seed.
type simulation struct {
	t     *testing.T
	rand  *rand.Rand
	nginx *simNginx
	world *simWorld
	now   time.Time
	past  []Snapshot // truths of before
}

// start makes an agent with a state file, or without one for "".
func (sim *simulation) start(file string) *runner {
	sim.nginx.kill = false
	a, err := OpenAgent(sim.t.Context(), Config{Source: noSource{}, Driver: sim.nginx,
		StateFile: file, Now: func() time.Time { return sim.now },
		Observe: func(op string, _ time.Duration, _ error) {
			if op == "save" {
				sim.nginx.step()
			}
		}})
	if err != nil {
		sim.t.Fatal(err)
	}
	r := &runner{Agent: a, table: newTable(a.cfg.Guard), seen: map[SetAside]bool{}}
	r.begin()
	return r
}

// give has the source supply a snapshot.
func (sim *simulation) give(s Snapshot, to ...*runner) {
	sim.world.revision++
	for _, r := range to {
		r.next = &revised{s, sim.world.revision}
	}
}

// back is the truth, with the plans of changes that an agent may have missed.
func (sim *simulation) back() Snapshot {
	back := sim.world.truth
	back.Planned = everyPlan()
	return back
}

// step lets the agent do one step. It returns false when the agent was killed in it.
func (sim *simulation) step(r *runner) (alive, done bool) {
	defer func() {
		sim.nginx.kill = false
		if v := recover(); v != nil && v != errKilled { //nolint:errorlint // it is the value itself
			panic(v)
		}
	}()
	sim.nginx.kill = true
	done, err := r.step(sim.t.Context())
	return true, done && err == nil
}

// Over many orders of changes, of snapshots that are empty, halved or old, and of faults: calls
// that fail, answers that are lost, workers that lag, memory that is full, state files that are
// damaged, starts of Nginx, an agent that is killed between any two steps, and a second one. A
// snapshot that is not true never takes the last instance of a cluster away, an agent that starts
// changes nothing before its source has spoken, and when all is well again Nginx has the routes
// that the platform wants.
func TestSimulation(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for seed := range soak.Count(300, 6_000) {
		sim := &simulation{t: t, rand: rand.New(rand.NewPCG(uint64(seed), 1)),
			now: time.Unix(1_700_000_000, 0)}
		sim.nginx = &simNginx{rand: sim.rand, faulty: true}
		sim.world = &simWorld{rand: sim.rand, truth: Snapshot{
			Baseline: map[string][]Instance{}, Overlays: map[netip.Addr]map[string][]Instance{}}}
		own := ""
		if seed%3 == 0 { // a file is written to the disk
			own = filepath.Join(dir, fmt.Sprint(seed))
			sim.nginx.file = own
		}
		if err := sim.run(own); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func (sim *simulation) run(file string) error {
	r := sim.start(file)
	var second *runner // on the same Nginx, with a state file of its own
	lying := false
	for range 60 {
		sim.now = sim.now.Add(time.Duration(sim.rand.IntN(60)) * time.Second)
		began := false
		switch op := sim.rand.IntN(16); {
		case op < 5 && !lying:
			sim.past = append(sim.past, sim.world.truth)
			sim.give(sim.world.change(), sim.agents(r, second)...)
		case op == 5:
			sim.give(sim.lie(), sim.agents(r, second)...)
			lying = true
		case op == 6 && lying:
			sim.give(sim.back(), sim.agents(r, second)...)
			lying = false
		case op == 7:
			sim.nginx.restart()
		case op == 8:
			sim.nginx.full = !sim.nginx.full
		case op == 9 && file != "":
			sim.nginx.damage()
		case op == 10 && second == nil:
			if second = sim.start(""); lying {
				sim.give(sim.lie(), second)
			} else {
				sim.give(sim.back(), second)
			}
		case op == 11: // the source is silent, or lies
			if r, began = sim.start(file), true; lying {
				sim.give(sim.lie(), r)
				began = false
			}
		case op == 12 && !lying:
			r = sim.start(file)
			sim.give(sim.back(), r)
		}
		if err := sim.turn(&r, file, began); err != nil {
			return err
		}
		if second != nil && sim.rand.IntN(2) == 0 {
			if err := sim.turn(&second, "", false); err != nil {
				return err
			}
		}
	}
	return sim.settle(file, second)
}

func (sim *simulation) agents(r, second *runner) []*runner {
	if second == nil {
		return []*runner{r}
	}
	return []*runner{r, second}
}

// lie is a snapshot that is not true: one that has lost something, or an old one.
func (sim *simulation) lie() Snapshot {
	if len(sim.past) > 0 && sim.rand.IntN(3) == 0 {
		old := sim.past[sim.rand.IntN(len(sim.past))]
		old.Planned = nil
		return old
	}
	return sim.world.lie()
}

// turn lets an agent do one step, starts it again where it was killed, and looks at Nginx. silent
// is whether the agent has begun and its source has not spoken.
func (sim *simulation) turn(r **runner, file string, silent bool) error {
	before := sim.nginx.routes
	// The agent brings back the newer routes that it knows.
	older := before.Generation.Number < (*r).table.base.Number
	alive, done := sim.step(*r)
	if !alive {
		*r = sim.start(file)
	}
	after := sim.nginx.routes
	for cluster, list := range before.Snapshot.Baseline {
		if !older && len(list) > 0 && len(sim.world.truth.Baseline[cluster]) > 0 &&
			len(after.Snapshot.Baseline[cluster]) == 0 {
			return fmt.Errorf("cluster %s lost its last instance", cluster)
		}
	}
	saved := Generation{}
	if file != "" {
		routes, _, _ := readState(file)
		saved = routes.Generation
	}
	if silent && saved.Number <= before.Generation.Number && before.Generation != (Generation{}) &&
		!before.Snapshot.Equal(after.Snapshot) {
		return fmt.Errorf("without a word of the source Nginx went from %s to %s, the file has %s",
			before.Generation, after.Generation, saved)
	}
	if s := (*r).Status(); done && (*r).table.have && s.Verified != after.Generation {
		return fmt.Errorf("%s is verified, and Nginx has %s", s.Verified, after.Generation)
	}
	return nil
}

// settle ends all faults: a new agent, since a fenced one would stay so, has 20 steps.
func (sim *simulation) settle(file string, second *runner) error {
	sim.nginx.faulty, sim.nginx.full = false, false
	r := sim.start(file)
	sim.give(sim.back(), sim.agents(r, second)...)
	for range 20 {
		sim.now = sim.now.Add(time.Second)
		if _, done := sim.step(r); done && r.table.revision == sim.world.revision {
			break
		}
	}
	if second != nil {
		sim.step(second)
	}
	if !sim.nginx.routes.Snapshot.Equal(sim.world.truth) {
		return fmt.Errorf("nginx has %+v, want %+v, held %v", sim.nginx.routes.Snapshot,
			sim.world.truth, r.table.heldList())
	}
	if file == "" {
		return nil
	}
	if saved, _, damaged := readState(file); saved.Generation != sim.nginx.routes.Generation ||
		len(damaged) > 0 {
		return fmt.Errorf("the state file has %s, Nginx %s, damaged %v", saved.Generation,
			sim.nginx.routes.Generation, damaged)
	}
	return nil
}

// everyPlan covers each change that the world may have made.
func everyPlan() (all []Intent) {
	for i := range 5 {
		all = append(all, Intent{Cluster: fmt.Sprint("c", i)},
			Intent{VIP: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})})
	}
	return all
}

// An agent that comes while another one pushes, and cannot push itself yet, judges its source by
// the routes that Nginx has when it can: it takes away nothing that it has not seen come.
func TestAgentThatComesLate(t *testing.T) {
	t.Parallel()
	sim := &simulation{t: t, rand: rand.New(rand.NewPCG(1, 1)), now: time.Unix(1_700_000_000, 0)}
	sim.nginx = &simNginx{rand: sim.rand}
	sim.world = &simWorld{rand: sim.rand}
	upTo := func(n int) Snapshot {
		s := Snapshot{Baseline: map[string][]Instance{}}
		for i := range n {
			s.Baseline[fmt.Sprint("c", i)] = []Instance{{ID: "1", Weight: 1,
				Addr: netip.MustParseAddrPort("10.1.2.3:80")}}
		}
		return s
	}
	first := sim.start("")
	sim.give(upTo(1), first)
	sim.step(first)
	second := sim.start("")
	sim.nginx.full = true
	sim.give(upTo(2), second)
	sim.step(second)
	sim.nginx.full = false
	sim.give(upTo(3), first)
	sim.step(first)
	sim.give(upTo(2), second)
	sim.step(second)
	if held := second.table.heldList(); len(held) != 1 || held[0].Cluster != "c2" ||
		!sim.nginx.routes.Snapshot.Equal(upTo(3)) {
		t.Fatalf("%+v is held, Nginx has %+v", held, sim.nginx.routes.Snapshot)
	}
	if sim.step(first); first.fenced == nil {
		t.Fatal("the second agent does not own Nginx")
	}
}
