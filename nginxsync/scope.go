package nginxsync

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync/internal/word"
)

// Scope holds what the routes say about a VIP besides its overlay. An address with a Scope whose
// Ended is zero is in use, also without an overlay: the baseline answers there.
type Scope struct {
	// Branches are names of Snapshot.Branches, MaxBranches at most: a cluster that the overlay does
	// not name is served by the first of them that names it, and by the baseline where none does.
	Branches []string
	// Ended says that the VIP's last lease has ended: Nginx answers 410 there. It does not count
	// while an overlay of the VIP names a cluster.
	Ended Ended
}

// MaxBranches is how many branches a Scope may name.
const MaxBranches = 8

// Ended describes a lease that has ended. It is zero when At is.
type Ended struct {
	Task string // that had the address: 1 to 63 letters, digits, ".", "_" or "-"
	At   time.Time
	// Versions are the versions that the address showed last, by cluster.
	Versions map[string]string
}

// Range is a range of addresses of one family, both ends included.
type Range struct{ First, Last netip.Addr }

// Contains reports whether the address is in the range.
func (r Range) Contains(a netip.Addr) bool {
	a = a.Unmap()
	return a.BitLen() == r.First.BitLen() && a.Compare(r.First) >= 0 && a.Compare(r.Last) <= 0
}

const (
	noteCluster = "=" // of the row about a scope: no cluster has the name
	poolScope   = "*" // of the row of the pools
	taskScope   = "+" // and a task: of the row that has the task's VIP
)

func (s Scope) equal(other Scope) bool {
	return slices.Equal(s.Branches, other.Branches) && s.Ended.Task == other.Ended.Task &&
		s.Ended.At.Equal(other.Ended.At) && maps.Equal(s.Ended.Versions, other.Ended.Versions)
}

// note is the body of the scope's row: the branches in their order, then the end of the lease.
//
//	b <branch>
//	e <task|-> <end, in seconds since 1970>
//	v <cluster> <version>
func (s Scope) note() string {
	var b strings.Builder
	for _, name := range s.Branches {
		b.WriteString("b " + name + "\n")
	}
	if !s.Ended.At.IsZero() {
		fmt.Fprintf(&b, "e %s %d\n", cmp.Or(s.Ended.Task, "-"), s.Ended.At.Unix())
		for _, cluster := range slices.Sorted(maps.Keys(s.Ended.Versions)) {
			b.WriteString("v " + cluster + " " + s.Ended.Versions[cluster] + "\n")
		}
	}
	return b.String()
}

func parseScope(note string) (s Scope, err error) {
	for line := range strings.Lines(note) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), " ")
		switch {
		case f[0] == "b" && len(f) == 2:
			s.Branches = append(s.Branches, f[1])
		case f[0] == "e" && len(f) == 3:
			at, err := strconv.ParseInt(f[2], 10, 64)
			if err != nil {
				return s, err
			}
			s.Ended.At = time.Unix(at, 0).UTC()
			if f[1] != "-" {
				s.Ended.Task = f[1]
			}
		case f[0] == "v" && len(f) == 3 && !s.Ended.At.IsZero():
			if s.Ended.Versions == nil {
				s.Ended.Versions = map[string]string{}
			}
			s.Ended.Versions[f[1]] = f[2]
		default:
			return s, fmt.Errorf("%q, want a branch or the end of a lease", line)
		}
	}
	return s, nil
}

// poolNote is the body of the row of the pools: a line "a <first> <last>" for each range.
func poolNote(pools []Range) string {
	var b strings.Builder
	for _, r := range pools {
		b.WriteString("a " + r.First.String() + " " + r.Last.String() + "\n")
	}
	return b.String()
}

func parsePools(note string) (pools []Range, err error) {
	for line := range strings.Lines(note) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), " ")
		if len(f) != 3 || f[0] != "a" {
			return nil, fmt.Errorf("%q, want a range of addresses", line)
		}
		first, err1 := netip.ParseAddr(f[1])
		last, err2 := netip.ParseAddr(f[2])
		if err := cmp.Or(err1, err2); err != nil {
			return nil, err
		}
		pools = append(pools, Range{first, last})
	}
	return pools, nil
}

// taskRow is the row of a task: a line "l <vip>".
func taskRow(task string, vip netip.Addr) Row {
	return Row{Branch: taskScope + task, Cluster: noteCluster,
		Note: "l " + nginxAddr(vip.Unmap()) + "\n"}
}

func parseTask(note string) (netip.Addr, error) {
	vip, ok := strings.CutPrefix(strings.TrimSuffix(note, "\n"), "l ")
	if !ok {
		return netip.Addr{}, fmt.Errorf("%q, want the VIP of a task", note)
	}
	return netip.ParseAddr(vip)
}

// canonicalPools are the ranges in order, those that touch joined.
func canonicalPools(pools []Range) []Range {
	pools = slices.Clone(pools)
	for i, r := range pools {
		pools[i] = Range{r.First.Unmap(), r.Last.Unmap()}
	}
	slices.SortFunc(pools, func(a, b Range) int {
		return cmp.Or(a.First.Compare(b.First), a.Last.Compare(b.Last))
	})
	var out []Range
	for _, r := range pools {
		n := len(out)
		if n > 0 && out[n-1].First.BitLen() == r.First.BitLen() &&
			(r.First.Compare(out[n-1].Last) <= 0 || r.First == out[n-1].Last.Next()) {
			if r.Last.Compare(out[n-1].Last) > 0 {
				out[n-1].Last = r.Last
			}
			continue
		}
		out = append(out, r)
	}
	return out
}

// canonical is the scope with its time in whole seconds, as the line form has it.
func (s Scope) canonical() Scope {
	s.Branches = slices.Clone(s.Branches)
	if s.Ended.At.IsZero() {
		s.Ended = Ended{}
		return s
	}
	s.Ended.At = time.Unix(s.Ended.At.Unix(), 0).UTC()
	if s.Ended.Versions = maps.Clone(s.Ended.Versions); len(s.Ended.Versions) == 0 {
		s.Ended.Versions = nil
	}
	return s
}

// scope takes over the scope of one VIP without what is not valid. A branch that cannot be asked
// must not show the baseline as the version under test: the clusters that it names answer 503.
func (f *sifter) scope(vip netip.Addr, in Scope, s Snapshot) {
	to := plain(vip)
	if !vip.IsValid() || vip.IsUnspecified() || vip.Zone() != "" {
		f.reject(SetAside{VIP: vip, Reason: "scope: want the address of a host, without zone"})
		return
	}
	if _, taken := f.out.Scopes[to]; taken {
		f.reject(SetAside{VIP: vip, Reason: fmt.Sprintf("%s has a scope too", to)})
		return
	}
	out := Scope{Ended: in.Ended}
	for i, name := range in.Branches {
		err := f.task(name)
		if err == nil && i < MaxBranches {
			out.Branches = append(out.Branches, name)
			continue
		}
		why := fmt.Sprintf("scope: has %d branches, want %d at most", len(in.Branches), MaxBranches)
		if err != nil {
			why = "scope: branch: " + err.Error()
		}
		f.reject(SetAside{VIP: vip, Reason: why})
		for cluster := range s.Branches[name] {
			if _, own := f.out.Overlays[to][cluster]; !own && word.Problem(cluster, 1) == "" {
				f.put(to, cluster, []Instance{})
			}
		}
	}
	if !out.Ended.At.IsZero() {
		f.ended(vip, &out.Ended)
	}
	if f.out.Scopes == nil {
		f.out.Scopes = map[netip.Addr]Scope{}
	}
	f.out.Scopes[to] = out
}

// ended leaves out the words that the routes cannot carry: the address answers 410 without them.
func (f *sifter) ended(vip netip.Addr, e *Ended) {
	if e.Task != "" {
		if err := f.task(e.Task); err != nil {
			f.reject(SetAside{VIP: vip, Reason: "scope: ended: " + err.Error()})
			e.Task = ""
		}
	}
	versions := map[string]string{}
	for _, cluster := range slices.Sorted(maps.Keys(e.Versions)) {
		err := cmp.Or(f.cluster(cluster), f.version(e.Versions[cluster]))
		if err != nil {
			f.reject(SetAside{VIP: vip, Reason: "scope: ended: " + err.Error()})
			continue
		}
		versions[cluster] = e.Versions[cluster]
	}
	e.Versions = versions
}

// branch takes over the clusters of a branch.
func (f *sifter) branch(name string, clusters map[string][]Instance) {
	if err := f.task(name); err != nil {
		f.reject(SetAside{Branch: name, Reason: reason(name, err)})
		return
	}
	out := map[string][]Instance{}
	for _, cluster := range slices.Sorted(maps.Keys(clusters)) {
		list := f.instances(key{branch: name, cluster: cluster}, clusters[cluster])
		if err := f.cluster(cluster); err != nil {
			f.reject(SetAside{Branch: name, Cluster: cluster, Reason: reason(cluster, err)})
			if list = []Instance{}; word.Problem(cluster, 1) != "" {
				continue
			}
		}
		out[cluster] = list
	}
	if f.out.Branches == nil {
		f.out.Branches = map[string]map[string][]Instance{}
	}
	f.out.Branches[name] = out
}

func (f *sifter) pools(pools []Range) {
	for _, r := range pools {
		if !r.First.IsValid() || !r.Last.IsValid() || r.First.BitLen() != r.Last.BitLen() ||
			r.First.Compare(r.Last) > 0 || r.First.Zone()+r.Last.Zone() != "" {
			f.reject(SetAside{VIP: r.First, Reason: fmt.Sprintf("pool %s-%s: want two addresses "+
				"of one family, the lower one first", r.First, r.Last)})
			continue
		}
		f.out.Pools = append(f.out.Pools, r)
	}
}

// tasks takes over the VIPs of tasks.
func (f *sifter) tasks(tasks map[string]netip.Addr) {
	for _, task := range slices.Sorted(maps.Keys(tasks)) {
		if f.named(task, tasks[task]) {
			if f.out.Tasks == nil {
				f.out.Tasks = make(map[string]netip.Addr, len(tasks))
			}
			f.out.Tasks[task] = tasks[task]
		}
	}
}

// named checks the VIP of a task, and reports whether it is valid.
func (f *sifter) named(task string, vip netip.Addr) bool {
	err := f.task(task)
	switch {
	case err != nil:
		f.reject(SetAside{VIP: vip, Reason: err.Error()})
	case !vip.IsValid() || vip.IsUnspecified() || vip.Zone() != "":
		f.reject(SetAside{VIP: vip, Reason: fmt.Sprintf("task %s: want the address of a host, "+
			"without zone", task)})
	default:
		return true
	}
	return false
}
