package nginxsync

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/sluice-deploy/sluice/internal/soak"
)

// However a snapshot shares maps and lists with the one before, and whether or not it has records
// that are not valid, the table has the rows of the whole snapshot.
func TestAcceptOfWhatIsShared(t *testing.T) {
	t.Parallel()
	for seed := range soak.Count(200, 20_000) {
		random := rand.New(rand.NewPCG(uint64(seed), 2))
		table := newTable(Guard{Share: 0.5})
		s := Snapshot{}
		for n := range uint64(30) {
			s = another(random, s)
			s.Planned = nil
			for _, in := range everyPlan() {
				in.serial = n
				s.Planned = append(s.Planned, in)
			}
			for i := range 5 {
				s.Planned = append(s.Planned, Intent{Branch: fmt.Sprint("b", i), serial: n})
			}
			table.accept(s, n+1, time.Unix(1_700_000_000, 0))
			usable, aside := s.Usable()
			want := NewRoutes(table.number, usable)
			if table.desired() != want.Generation {
				t.Fatalf("seed %d, snapshot %d: %+v: the table has %+v, held %v", seed, n, usable,
					table.rows, table.heldList())
			}
			if got := table.setAside(); len(got) != len(aside) {
				t.Fatalf("seed %d, snapshot %d: %v is set aside, want %v", seed, n, got, aside)
			}
		}
	}
}

// another is a snapshot that differs from s in one cluster of one scope, and shares more or less of
// the rest. s stays as it is.
func another(random *rand.Rand, s Snapshot) Snapshot {
	cluster := fmt.Sprint("c", random.IntN(5))
	if random.IntN(20) == 0 {
		cluster = "C-"
	}
	var list []Instance
	for i := range random.IntN(3) {
		list = append(list, Instance{ID: fmt.Sprint("i", i), Version: fmt.Sprint("v",
			random.IntN(3)), Addr: netip.MustParseAddrPort("10.1.2.3:80"),
			Weight: random.IntN(20) - 1})
	}
	change := func(clusters map[string][]Instance) map[string][]Instance {
		clusters = maps.Clone(clusters)
		if clusters == nil {
			clusters = map[string][]Instance{}
		}
		if random.IntN(3) == 0 {
			delete(clusters, cluster)
		} else {
			clusters[cluster] = list
		}
		return clusters
	}
	switch random.IntN(3) {
	case 0:
		s.Baseline = change(s.Baseline)
	case 1:
		vip := netip.AddrFrom4([4]byte{10, 0, 0, byte(random.IntN(4))})
		if random.IntN(20) == 0 {
			vip = netip.AddrFrom16(vip.As16()).WithZone("eth0")
		}
		s.Overlays = anotherScope(random, s.Overlays, vip, change)
	default:
		name := fmt.Sprint("b", random.IntN(3))
		if random.IntN(20) == 0 {
			name = "b "
		}
		s.Branches = anotherScope(random, s.Branches, name, change)
	}
	if random.IntN(3) == 0 { // nothing is shared
		s.Baseline = maps.Clone(s.Baseline)
		s.Overlays = maps.Clone(s.Overlays)
		for vip, clusters := range s.Overlays {
			s.Overlays[vip] = maps.Clone(clusters)
		}
	}
	return s
}

func anotherScope[K comparable](random *rand.Rand, all map[K]map[string][]Instance, name K,
	change func(map[string][]Instance) map[string][]Instance) map[K]map[string][]Instance {
	out := maps.Clone(all)
	if out == nil {
		out = map[K]map[string][]Instance{}
	}
	if random.IntN(4) == 0 {
		delete(out, name)
	} else {
		out[name] = change(all[name])
	}
	return out
}
