package nginxsync

import (
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Generation names one state of the routes. Number grows with each change that an agent makes;
// Digest is taken from the content, so that the generations of two agents differ even when their
// numbers are equal, and equal routes have the same digest everywhere: it is the exclusive or of
// the sums of all rows. The zero value stands for no routes.
type Generation struct {
	Number uint64 `json:"number"`
	Digest string `json:"digest"` // 16 hexadecimal digits
}

// String is the number in 20 digits, "-", and the digest: always of the same length, "" for the
// zero value.
func (g Generation) String() string {
	if g == (Generation{}) {
		return ""
	}
	return fmt.Sprintf("%020d-%s", g.Number, g.Digest)
}

// ParseGeneration is the reverse of Generation.String.
func ParseGeneration(s string) (Generation, error) {
	if s == "" {
		return Generation{}, nil
	}
	number, digest, ok := strings.Cut(s, "-")
	n, err := strconv.ParseUint(number, 10, 64)
	if !ok || err != nil || len(number) != 20 || len(digest) != 16 {
		return Generation{}, fmt.Errorf("generation %q, want 20 digits, \"-\", 16 hexadecimal "+
			"digits", s)
	}
	return Generation{Number: n, Digest: digest}, nil
}

// Routes are the routes that an Nginx serves: a generation and its content. Make it with NewRoutes.
type Routes struct {
	Generation Generation
	Snapshot   Snapshot // canonical
}

// NewRoutes numbers a snapshot. The snapshot must be valid.
func NewRoutes(number uint64, s Snapshot) Routes {
	s = s.Canonical()
	var digest uint64
	var b []byte
	s.each(func(r Row) {
		b = r.appendBody(b[:0])
		digest ^= r.sum(b)
	})
	return Routes{Generation: numbered(number, digest), Snapshot: s}
}

func numbered(number, digest uint64) Generation {
	return Generation{Number: number, Digest: fmt.Sprintf("%016x", digest)}
}

// each calls f with every row, in no order.
func (s Snapshot) each(f func(Row)) {
	for cluster, list := range s.Baseline {
		f(Row{Cluster: cluster, Instances: list})
	}
	for vip, clusters := range s.Overlays {
		for cluster, list := range clusters {
			f(Row{VIP: vip, Cluster: cluster, Instances: list})
		}
	}
	for name, clusters := range s.Branches {
		for cluster, list := range clusters {
			f(Row{Branch: name, Cluster: cluster, Instances: list})
		}
	}
	for vip, scope := range s.Scopes {
		f(Row{VIP: vip, Cluster: noteCluster, Note: scope.note()})
	}
	if len(s.Pools) > 0 {
		f(Row{Branch: poolScope, Cluster: noteCluster, Note: poolNote(s.Pools)})
	}
	for task, vip := range s.Tasks {
		f(taskRow(task, vip))
	}
}

// put adds a row to a snapshot whose maps Baseline and Overlays are there.
func (s *Snapshot) put(r Row) error {
	var err error
	switch {
	case r.Cluster == noteCluster && r.Branch == poolScope:
		s.Pools, err = parsePools(r.Note)
	case r.Cluster == noteCluster && r.Branch != "":
		if s.Tasks == nil {
			s.Tasks = map[string]netip.Addr{}
		}
		s.Tasks[r.Branch[len(taskScope):]], err = parseTask(r.Note)
	case r.Cluster == noteCluster:
		if s.Scopes == nil {
			s.Scopes = map[netip.Addr]Scope{}
		}
		s.Scopes[r.VIP], err = parseScope(r.Note)
	case r.VIP.IsValid():
		putCluster(s.Overlays, r.VIP, r)
	case r.Branch != "":
		if s.Branches == nil {
			s.Branches = map[string]map[string][]Instance{}
		}
		putCluster(s.Branches, r.Branch, r)
	default:
		s.Baseline[r.Cluster] = r.Instances
	}
	return err
}

func putCluster[K comparable](into map[K]map[string][]Instance, k K, r Row) {
	if into[k] == nil {
		into[k] = map[string][]Instance{}
	}
	into[k][r.Cluster] = r.Instances
}

// drop removes a row.
func (s *Snapshot) drop(r Row) {
	switch {
	case r.Cluster == noteCluster && r.Branch == poolScope:
		s.Pools = nil
	case r.Cluster == noteCluster && r.Branch != "":
		delete(s.Tasks, r.Branch[len(taskScope):])
	case r.Cluster == noteCluster:
		delete(s.Scopes, r.VIP)
	case r.VIP.IsValid():
		dropCluster(s.Overlays, r.VIP, r)
	case r.Branch != "":
		dropCluster(s.Branches, r.Branch, r)
	default:
		delete(s.Baseline, r.Cluster)
	}
}

func dropCluster[K comparable](from map[K]map[string][]Instance, k K, r Row) {
	delete(from[k], r.Cluster)
	if len(from[k]) == 0 {
		delete(from, k)
	}
}

// The line form, in which the state file is written and routes are read back: a line with the
// generation, the rows as Row describes them in no order, and a last line.
//
//	sluice-routes 2 <generation> <sum>
//	end <number of rows>
//
// The sum is the first 8 bytes of the MD5 of the generation: the digest of the rows proves them,
// but not the number. It may be missing.
const routesHeader = "sluice-routes 2 "

// MarshalText is the line form of the routes.
func (r Routes) MarshalText() ([]byte, error) { return r.AppendText(nil) }

// AppendText appends the line form of the routes.
func (r Routes) AppendText(b []byte) ([]byte, error) {
	b = appendHeader(b, r.Generation)
	n := 0
	r.Snapshot.each(func(row Row) {
		b = row.appendTo(b)
		n++
	})
	return fmt.Appendf(b, "end %d\n", n), nil
}

func appendHeader(b []byte, g Generation) []byte {
	return fmt.Appendf(b, "%s%s %s\n", routesHeader, g, g.sum())
}

// sum is the sum of the generation in the line form.
func (g Generation) sum() string {
	sum := md5.Sum([]byte(g.String()))
	return hex.EncodeToString(sum[:8])
}

// UnmarshalText reads the line form, also that of version 1. It refuses text that is cut short,
// that was changed or that is not valid, and names the line. It accepts names that earlier versions
// wrote and Snapshot.Validate refuses now.
func (r *Routes) UnmarshalText(text []byte) error {
	if strings.HasPrefix(string(text[:min(len(text), len(routesHeaderV1))]), routesHeaderV1) {
		return r.unmarshalV1(text)
	}
	p := &parser{rest: string(text), line: 1}
	name, ok := strings.CutPrefix(p.next(), routesHeader)
	if !ok {
		return p.bad("want %q and a generation", strings.TrimSpace(routesHeader))
	}
	name, sum, summed := strings.Cut(name, " ")
	generation, err := ParseGeneration(name)
	if err != nil {
		return p.bad("%s", err)
	}
	if want := generation.sum(); summed && sum != want {
		return p.bad("the sum of the generation is %s, not %q: it was changed", want, sum)
	}
	s := Snapshot{Baseline: map[string][]Instance{},
		Overlays: map[netip.Addr]map[string][]Instance{}}
	n := 0
	for ; p.rest != fmt.Sprintf("end %d\n", n); n++ {
		row, err := p.row()
		if err != nil {
			return err
		}
		if err := s.put(row); err != nil {
			return p.bad("%s", err)
		}
	}
	return r.check(generation, s)
}

// check makes r the routes that were read.
func (r *Routes) check(generation Generation, s Snapshot) error {
	if _, aside := s.sift(lenient); len(aside) > 0 {
		return fmt.Errorf("routes: %w", asErrors(aside))
	}
	got := NewRoutes(generation.Number, s)
	if got.Generation != generation {
		return fmt.Errorf("routes line 1: the digest of the rows is %s, not %s: a row is missing: "+
			"%w", got.Generation.Digest, generation.Digest, ErrInvalid)
	}
	*r = got
	return nil
}
