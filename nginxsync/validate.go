package nginxsync

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/internal/names"
	"github.com/sluice-deploy/sluice/nginxsync/internal/word"
)

// ErrInvalid is in the chain of errors about a record or a text that is not valid.
var ErrInvalid = errors.New("invalid")

// SetAside is one record of a Snapshot that cannot be served as it is.
type SetAside struct {
	// the zero Addr for the baseline and for a branch
	VIP netip.Addr `json:"vip"`
	// empty for the baseline and for a VIP
	Branch string `json:"branch,omitempty"`
	// empty when the VIP itself is the problem
	Cluster string `json:"cluster"`
	// empty when the cluster or the VIP is the problem, and for an empty id
	Instance string `json:"instance"`
	// the problem, and the valid form
	Reason string `json:"reason"`
}

// String is the place and the reason, such as
//
//	vip 10.0.0.9 cluster "a" instance "i1": weight -1, want 0 to 65535
func (a SetAside) String() string {
	var b strings.Builder
	switch {
	case a.VIP.IsValid():
		fmt.Fprintf(&b, "vip %s", a.VIP)
	case a.Branch != "":
		fmt.Fprintf(&b, "branch %s", names.Quote(a.Branch))
	case a.Cluster == "":
		b.WriteString("vip")
	default:
		b.WriteString("baseline")
	}
	if a.Cluster != "" {
		fmt.Fprintf(&b, " cluster %s", names.Quote(a.Cluster))
	}
	if a.Instance != "" {
		fmt.Fprintf(&b, " instance %s", names.Quote(a.Instance))
	}
	return b.String() + ": " + a.Reason
}

// Validate reports every record that Usable would set aside, with its VIP, cluster and instance.
// Each error has ErrInvalid in its chain.
func (s Snapshot) Validate() error {
	_, aside := s.sift(strict)
	return asErrors(aside)
}

func asErrors(aside []SetAside) error {
	errs := make([]error, len(aside))
	for i, a := range aside {
		errs[i] = fmt.Errorf("%s: %w", a, ErrInvalid)
	}
	return errors.Join(errs...)
}

// Usable returns the part of the snapshot that can be served, and the records that were set aside,
// baseline first, then by VIP, cluster and instance. A record that is not valid harms only itself:
//
//   - An instance with a bad id, address, weight or version is set aside; the others of its cluster
//     serve. Of several with the same id the first one stays.
//   - A cluster of the baseline with a bad name is set aside.
//   - A cluster of an overlay with a bad name becomes an empty overlay, which answers 503, under
//     that name and under the name in lower case unless the overlay has a cluster of that name: the
//     VIP must not show the baseline as the version under test. The same holds for an overlay whose
//     instances are all set aside. A name that the routes cannot carry (with spaces or bytes
//     outside of ASCII, too long) is left out: no upstream has it.
//   - An overlay whose VIP is written as an IPv4 address in IPv6 is an overlay of the IPv4 address.
//     One whose VIP has a zone becomes empty overlays of the address without it. Where the address
//     itself has an overlay for the cluster, that one counts, and the other is set aside.
//   - A branch with a bad name is set aside, and the clusters that it names answer 503 on the VIPs
//     whose scopes name it; its clusters and instances are held to the rules of an overlay's. Of a
//     scope with more than MaxBranches branches the others are treated so.
//   - Of a scope's Ended the words that are not valid are left out.
//   - A task with a bad name, or whose VIP is no address of a host, is set aside.
//   - An overlay without an address, or of the unspecified address, is set aside: no request comes
//     to it.
func (s Snapshot) Usable() (Snapshot, []SetAside) { return s.sift(strict) }

// grammar checks the words of a snapshot.
type grammar struct {
	cluster, instance, version, task func(string) error
	// the fault of a host address, or ""
	addr func(netip.Addr) string
}

var (
	// strict is for new snapshots.
	strict = grammar{names.Cluster, names.Instance, names.Version, names.Task, strictAddr}
	// lenient is for the line form, which earlier versions wrote with more names.
	lenient = grammar{lenientName, lenientName, lenientName, lenientName,
		func(netip.Addr) string { return "" }}
)

// strictAddr refuses the addresses that no instance has: a link-local one leads to the metadata
// service of a cloud (169.254.169.254) or needs a zone, a multicast or broadcast one to no host.
func strictAddr(a netip.Addr) string {
	switch a = a.Unmap(); {
	case a.IsLinkLocalUnicast():
		return "is link-local"
	case a.IsMulticast():
		return "is a multicast address"
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "is the broadcast address"
	}
	return ""
}

func lenientName(s string) error {
	if why := word.Problem(s, 1); why != "" {
		return fmt.Errorf("name %s: %s", names.Quote(s), why)
	}
	return nil
}

// sifter collects the usable part of a snapshot.
type sifter struct {
	grammar
	out   Snapshot
	aside []SetAside
}

func (s Snapshot) sift(g grammar) (Snapshot, []SetAside) {
	f := &sifter{grammar: g, out: Snapshot{
		Baseline: make(map[string][]Instance, len(s.Baseline)),
		Overlays: make(map[netip.Addr]map[string][]Instance, len(s.Overlays)),
		Planned:  s.Planned,
	}}
	for _, cluster := range slices.Sorted(maps.Keys(s.Baseline)) {
		if err := g.cluster(cluster); err != nil {
			f.reject(SetAside{Cluster: cluster, Reason: reason(cluster, err)})
			f.instances(key{cluster: cluster}, s.Baseline[cluster]) // only to report them
			continue
		}
		f.out.Baseline[cluster] = f.instances(key{cluster: cluster}, s.Baseline[cluster])
	}
	vips := slices.SortedFunc(maps.Keys(s.Overlays), netip.Addr.Compare)
	for _, vip := range vips {
		if plain(vip) == vip {
			f.overlay(vip, s.Overlays[vip])
		}
	}
	for _, vip := range vips {
		if plain(vip) != vip {
			f.alias(vip, s.Overlays[vip])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Branches)) {
		f.branch(name, s.Branches[name])
	}
	scopes := slices.SortedFunc(maps.Keys(s.Scopes), func(a, b netip.Addr) int {
		if p, q := plain(a) != a, plain(b) != b; p != q {
			return map[bool]int{false: -1, true: 1}[p] // the address itself before another form
		}
		return a.Compare(b)
	})
	for _, vip := range scopes {
		f.scope(vip, s.Scopes[vip], s)
	}
	f.pools(s.Pools)
	f.tasks(s.Tasks)
	return f.out, f.aside
}

// plain is the address that requests for the VIP come to.
func plain(vip netip.Addr) netip.Addr { return vip.WithZone("").Unmap() }

// reason is the error about a name without its beginning, which repeats the name.
func reason(name string, err error) string {
	_, why, ok := strings.Cut(err.Error(), names.Quote(name)+": ")
	if !ok {
		return err.Error()
	}
	return why
}

func (f *sifter) reject(a SetAside) { f.aside = append(f.aside, a) }

// overlay takes over an overlay whose VIP is written as it should be.
func (f *sifter) overlay(vip netip.Addr, clusters map[string][]Instance) {
	if !vip.IsValid() || vip.IsUnspecified() {
		f.reject(SetAside{VIP: vip, Reason: "want the address of a host"})
		return
	}
	for _, cluster := range slices.Sorted(maps.Keys(clusters)) {
		if err := f.cluster(cluster); err != nil {
			f.reject(SetAside{VIP: vip, Cluster: cluster, Reason: reason(cluster, err)})
			f.instances(key{vip: vip, cluster: cluster}, clusters[cluster]) // only to report them
			f.unavailable(vip, cluster, clusters)
			continue
		}
		f.put(vip, cluster, f.instances(key{vip: vip, cluster: cluster}, clusters[cluster]))
	}
}

// unavailable makes the VIP answer 503 for a cluster whose name is bad, by each name that an
// upstream may have.
func (f *sifter) unavailable(vip netip.Addr, cluster string, clusters map[string][]Instance) {
	for _, name := range []string{cluster, strings.ToLower(cluster)} {
		_, own := clusters[name]
		_, taken := f.out.Overlays[vip][name] // by the overlay of the address itself
		if word.Problem(name, 1) == "" && (name == cluster || !own && !taken) {
			f.put(vip, name, []Instance{})
		}
	}
}

// alias takes over an overlay whose VIP is another way to write an address.
func (f *sifter) alias(vip netip.Addr, clusters map[string][]Instance) {
	to := plain(vip)
	zone := vip.Zone() != ""
	if zone {
		f.reject(SetAside{VIP: vip, Reason: "want an address without zone"})
	}
	rest := make(map[string][]Instance, len(clusters))
	for _, cluster := range slices.Sorted(maps.Keys(clusters)) {
		_, taken := f.out.Overlays[to][cluster]
		switch {
		case taken && !zone:
			f.reject(SetAside{VIP: vip, Cluster: cluster,
				Reason: fmt.Sprintf("the overlay of %s has the cluster too", to)})
		case taken:
		case zone:
			rest[cluster] = []Instance{}
		default:
			rest[cluster] = clusters[cluster]
		}
	}
	f.overlay(to, rest)
}

func (f *sifter) put(vip netip.Addr, cluster string, list []Instance) {
	if f.out.Overlays[vip] == nil {
		f.out.Overlays[vip] = map[string][]Instance{}
	}
	f.out.Overlays[vip][cluster] = list
}

// instances returns the valid instances of the list, never nil.
func (f *sifter) instances(k key, list []Instance) []Instance {
	good := make([]Instance, 0, len(list))
	seen := make(map[string]bool, len(list))
	for _, in := range list {
		why := f.problems(in)
		if seen[in.ID] && len(why) == 0 {
			why = append(why, "listed twice")
		}
		if len(why) > 0 {
			f.reject(SetAside{VIP: k.vip, Branch: k.branch, Cluster: k.cluster, Instance: in.ID,
				Reason: strings.Join(why, "; ")})
			continue
		}
		seen[in.ID] = true
		good = append(good, in)
	}
	return good
}

// problems lists everything that is wrong with one instance.
func (f *sifter) problems(in Instance) []string {
	var why []string
	if err := f.instance(in.ID); err != nil {
		why = append(why, "id: "+reason(in.ID, err))
	}
	if in.Version == noVersion {
		why = append(why, fmt.Sprintf("version %q stands for no version", in.Version))
	} else if in.Version != "" {
		if err := f.version(in.Version); err != nil {
			why = append(why, err.Error())
		}
	}
	addr := in.Addr.Addr()
	if !in.Addr.IsValid() || in.Addr.Port() == 0 || addr.IsUnspecified() || addr.Zone() != "" {
		why = append(why, fmt.Sprintf("address %s, want a host address without zone and a port",
			in.Addr))
	} else if problem := f.addr(addr); problem != "" {
		why = append(why, fmt.Sprintf("address %s %s, want that of a host", in.Addr, problem))
	}
	if in.Weight < 0 || in.Weight > 65535 {
		why = append(why, fmt.Sprintf("weight %d, want 0 to 65535", in.Weight))
	}
	return why
}

// noVersion is an empty version in the line form.
const noVersion = "-"
