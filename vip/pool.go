package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"time"
)

// DefaultCoolDown outlasts the caches that remember an address: ARP entries (60 s), connection
// tracking of a half-open connection (120 s).
const DefaultCoolDown = 130 * time.Second

// DefaultMaxQuarantined is the share of a pool that may be in quarantine.
const DefaultMaxQuarantined = 0.1

// AnyTeam as a key of Pool.Quotas stands for each team that has no quota of its own.
const AnyTeam = "*"

// Range is a run of addresses of one family, both ends included.
type Range struct {
	First, Last netip.Addr
}

func (r Range) String() string {
	if r.First == r.Last {
		return r.First.String()
	}
	return r.First.String() + "-" + r.Last.String()
}

// Leasable returns the addresses of the pool but the reserved ones, in the order of Ranges.
func (p Pool) Leasable() []Range {
	reserved := slices.SortedFunc(maps.Keys(p.Reserved), netip.Addr.Compare)
	var out []Range
	for _, r := range p.Ranges {
		first, left := r.First, true
		i, _ := slices.BinarySearchFunc(reserved, first, netip.Addr.Compare)
		for ; left && i < len(reserved) && reserved[i].Compare(r.Last) <= 0; i++ {
			if first.Less(reserved[i]) {
				out = append(out, Range{First: first, Last: reserved[i].Prev()})
			}
			first, left = reserved[i].Next(), reserved[i] != r.Last
		}
		if left {
			out = append(out, Range{First: first, Last: r.Last})
		}
	}
	return out
}

// ParseRange reads "10.0.0.0/24", "10.0.0.7" or "10.0.0.7-10.0.0.20", IPv4 or IPv6. A prefix must
// have no host bits set.
func ParseRange(s string) (Range, error) {
	if first, last, ok := strings.Cut(s, "-"); ok {
		return parseEnds(s, first, last)
	}
	if !strings.Contains(s, "/") {
		return parseEnds(s, s, s)
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return Range{}, fmt.Errorf("range %q: want a prefix, an address or first-last: %w", s, err)
	case p != p.Masked():
		return Range{}, fmt.Errorf("range %q: host bits are set: write %s or a single address", s,
			p.Masked())
	case p.Addr().Is4In6():
		return Range{}, fmt.Errorf("range %q: IPv4 in IPv6 form: write the IPv4 prefix", s)
	}
	var r Range
	r.First, r.Last = ends(p)
	return r, r.validate()
}

func parseEnds(s, first, last string) (Range, error) {
	var r Range
	var err error
	if r.First, err = netip.ParseAddr(strings.TrimSpace(first)); err == nil {
		r.Last, err = netip.ParseAddr(strings.TrimSpace(last))
	}
	if err != nil {
		return Range{}, fmt.Errorf("range %q: want a prefix, an address or first-last: %w", s, err)
	}
	return r, r.validate()
}

func (r Range) validate() error {
	switch {
	case !r.First.IsValid() || !r.Last.IsValid():
		return fmt.Errorf("range %s: both ends are required", r)
	case r.First.Zone() != "" || r.Last.Zone() != "":
		return fmt.Errorf("range %s: zones are not supported", r)
	case r.First.Is4In6() || r.Last.Is4In6():
		return fmt.Errorf("range %s: IPv4 in IPv6 form: write the IPv4 address", r)
	case r.First.BitLen() != r.Last.BitLen():
		return fmt.Errorf("range %s: ends of two address families", r)
	case r.Last.Less(r.First):
		return fmt.Errorf("range %s: first is after last", r)
	}
	for _, s := range special {
		if first, last := ends(s.prefix); !last.Less(r.First) && !r.Last.Less(first) {
			return fmt.Errorf("range %s: %s has %s, which no host can be given", r, s.prefix,
				s.what)
		}
	}
	return nil
}

// special are the addresses that are no one host's: RFC 6890 for IPv4, RFC 4291 for IPv6.
var special = []struct {
	prefix netip.Prefix
	what   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "addresses of \"this network\""},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local addresses"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast addresses"},
	{netip.MustParsePrefix("255.255.255.255/32"), "the limited broadcast address"},
	{netip.MustParsePrefix("::/128"), "the unspecified address"},
	{netip.MustParsePrefix("fe80::/10"), "link-local addresses"},
	{netip.MustParsePrefix("ff00::/8"), "multicast addresses"},
}

// ends are the first and the last address of p, which is masked.
func ends(p netip.Prefix) (first, last netip.Addr) {
	b := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ = netip.AddrFromSlice(b)
	return p.Addr(), last
}

// Pool is a set of addresses that are handed out under the same rules.
type Pool struct {
	// Name of the pool; required, and of one pool only.
	Name string
	// Ranges of addresses; required. They must not overlap each other or those of another pool. In
	// a pool of more than 65,536 addresses, of which more than half are free, an address that has
	// cooled down is forgotten by the next sweep, with its history: its holders are no longer
	// known, and a late call for its last lease gets ErrNotFound. So memory and store grow with the
	// leases that live or cool down, not with the pool. Generations go on growing.
	Ranges []Range
	// Reserved addresses are never handed out; the value is the reason. Those outside Ranges are
	// refused.
	Reserved map[netip.Addr]string
	// CoolDown is how long an address rests after its lease has ended, before another owner gets
	// it; negative for none. The default is DefaultCoolDown.
	CoolDown time.Duration
	// MaxCooling is the share of the pool, above 0 up to 1, that may cool down while a request
	// finds nothing free: of the addresses above the share, the one that has cooled longest is
	// handed out early, and the lease's Reason says so. AllocateN for more than one address does
	// not do this. The default is 1: an address always rests for the whole cool-down.
	MaxCooling float64
	// Details of single addresses, as a list of ready-made VIPs gives them: see ReadList. The
	// default is none.
	Details map[netip.Addr]Details
	// MaxQuarantined is the share of the pool, above 0 up to 1, that Quarantine may set aside; one
	// address always. The default is DefaultMaxQuarantined.
	MaxQuarantined float64
	// Labels to choose a pool by, and to find its leases by.
	Labels map[string]string
	// Disabled pools hand out nothing; leased addresses stay leased. This is how a pool is drained.
	// The default is enabled.
	Disabled bool
	// Quotas limit how many leases a team may have in this pool at once; AnyTeam stands for each
	// team that is not named. Leases already over a quota stay, and so does an allocation that was
	// in progress when SetPools set the quota; both count. A quota of 0 admits none. The default is
	// no limit.
	Quotas map[string]int
	// MaxLease is the longest time from acquisition to expiry, renewals included. The default is no
	// limit.
	MaxLease time.Duration
}

// ParsePool makes a pool of ranges as ParseRange reads them. In an IPv4 prefix shorter than /31 the
// network and the broadcast address are reserved. In an IPv6 prefix shorter than /127 the first
// address is, which is the subnet's routers' (RFC 4291, section 2.6.1). In each /64 of an IPv6
// range the first address is reserved for the same reason, and the 128 from fdff:ffff:ffff:ff80 on
// are as subnet anycast addresses (RFC 2526); of a range over more than 16 of them, in the first 15
// and the last, since addresses are handed out in order. A Pool without ParsePool reserves what
// Reserved says.
func ParsePool(name string, ranges ...string) (Pool, error) {
	p := Pool{Name: name, Reserved: map[netip.Addr]string{}}
	var errs []error
	for _, s := range ranges {
		r, err := ParseRange(s)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		p.Ranges = append(p.Ranges, r)
		maps.Copy(p.Reserved, r.reserved(s))
	}
	if len(errs) > 0 {
		return Pool{}, fmt.Errorf("pool %q: %w", name, errors.Join(errs...))
	}
	if _, err := layOut(p); err != nil {
		return Pool{}, err
	}
	return p, nil
}

func (p Pool) coolDown() time.Duration {
	switch {
	case p.CoolDown == 0:
		return DefaultCoolDown
	case p.CoolDown < 0:
		return 0
	}
	return p.CoolDown
}

// layout is the arithmetic of a pool: its ranges in order, and the index of the first address of
// each.
type layout struct {
	ranges []Range
	starts []uint64
	size   uint64
}

// layOut checks p. The error is ErrInvalid and names every bad field.
func layOut(p Pool) (layout, error) {
	l := layout{ranges: slices.Clone(p.Ranges)}
	errs := p.problems()
	if len(errs) == 0 {
		errs = l.fill(p)
	}
	for i := range errs {
		errs[i] = fmt.Errorf("pool %q: %w: %w", p.Name, errs[i], ErrInvalid)
	}
	if err := errors.Join(errs...); err != nil {
		return layout{}, err
	}
	return l, nil
}

// problems lists the bad fields of p, as far as each can be judged alone.
func (p *Pool) problems() (errs []error) {
	bad := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", "Pool."+field, fmt.Sprintf(format, args...)))
	}
	if p.Name == "" {
		bad("Name", "required")
	}
	if len(p.Ranges) == 0 {
		bad("Ranges", "want at least one")
	}
	for _, r := range p.Ranges {
		if err := r.validate(); err != nil {
			bad("Ranges", "%v", err)
		}
	}
	if !(p.MaxCooling >= 0 && p.MaxCooling <= 1) {
		bad("MaxCooling", "%v: want 0 to 1", p.MaxCooling)
	}
	if !(p.MaxQuarantined >= 0 && p.MaxQuarantined <= 1) {
		bad("MaxQuarantined", "%v: want 0 to 1", p.MaxQuarantined)
	}
	if p.CoolDown > longestTTL {
		bad("CoolDown", "%s: want at most 100 years, or negative for none", p.CoolDown)
	}
	if p.MaxLease < 0 || p.MaxLease > longestTTL {
		bad("MaxLease", "%s: want 0 (default no limit) to 100 years", p.MaxLease)
	}
	if _, empty := p.Labels[""]; empty {
		bad("Labels", "a label has no name")
	}
	for _, team := range slices.Sorted(maps.Keys(p.Quotas)) {
		if limit := p.Quotas[team]; limit < 0 {
			bad("Quotas", "team %q: %d: want 0 or more", team, limit)
		}
	}
	for addr, d := range p.Details {
		if !addr.IsValid() || addr.Is4In6() {
			bad("Details", "address %s: want a plain IPv4 or IPv6 address", addr)
		}
		if slices.Contains(d.Ports, 0) {
			bad("Details", "address %s: port 0: want 1 to 65535", addr)
		}
	}
	return errs
}

// fill computes the layout of p, and returns the problems of the ranges together.
func (l *layout) fill(p Pool) (errs []error) {
	slices.SortFunc(l.ranges, func(a, b Range) int { return a.First.Compare(b.First) })
	for i, r := range l.ranges {
		if i > 0 && !l.ranges[i-1].Last.Less(r.First) {
			errs = append(errs, fmt.Errorf("Pool.Ranges: ranges %s and %s overlap", l.ranges[i-1],
				r))
		}
	}
	l.measure()
	for addr := range p.Reserved {
		if !l.contains(addr) {
			errs = append(errs, fmt.Errorf("Pool.Reserved: address %s is outside its ranges", addr))
		}
	}
	return errs
}

// measure computes starts and size.
func (l *layout) measure() {
	l.starts, l.size = make([]uint64, len(l.ranges)), 0
	for i, r := range l.ranges {
		l.starts[i] = l.size
		l.size = addSizes(l.size, addSizes(distance(r.First, r.Last), 1))
	}
}

// addSizes returns a + b, at most 2^64 - 1: more addresses are not counted.
func addSizes(a, b uint64) uint64 {
	if sum := a + b; sum >= a {
		return sum
	}
	return math.MaxUint64
}

func (l layout) contains(addr netip.Addr) bool {
	i := l.rangeBefore(addr)
	return addr.Zone() == "" && i >= 0 && !l.ranges[i].Last.Less(addr)
}

// rangeBefore is the number of the last range that begins at addr or below, -1 for none.
func (l layout) rangeBefore(addr netip.Addr) int {
	return sort.Search(len(l.ranges), func(i int) bool { return addr.Less(l.ranges[i].First) }) - 1
}

// endOf is the last address of the range that has addr.
func (l layout) endOf(addr netip.Addr) netip.Addr { return l.ranges[l.rangeBefore(addr)].Last }

// below is how many addresses are below addr.
func (l layout) below(addr netip.Addr) uint64 {
	i := l.rangeBefore(addr)
	switch {
	case i < 0:
		return 0
	case l.ranges[i].Last.Less(addr):
		return addSizes(l.starts[i], addSizes(distance(l.ranges[i].First, l.ranges[i].Last), 1))
	}
	return addSizes(l.starts[i], distance(l.ranges[i].First, addr))
}

// at is the address with index i in the order of addresses.
func (l layout) at(i uint64) netip.Addr {
	r := sort.Search(len(l.starts), func(r int) bool { return l.starts[r] > i }) - 1
	first, n := l.ranges[r].First, i-l.starts[r]
	if first.Is4() {
		b := first.As4()
		binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+uint32(n))
		return netip.AddrFrom4(b)
	}
	b := first.As16()
	low := binary.BigEndian.Uint64(b[8:])
	if low+n < low {
		binary.BigEndian.PutUint64(b[:8], binary.BigEndian.Uint64(b[:8])+1)
	}
	binary.BigEndian.PutUint64(b[8:], low+n)
	return netip.AddrFrom16(b)
}

// distance is the number of steps from a to b, both of one family, saturated.
func distance(a, b netip.Addr) uint64 {
	x, y := a.As16(), b.As16()
	high := binary.BigEndian.Uint64(y[:8]) - binary.BigEndian.Uint64(x[:8])
	lowA, lowB := binary.BigEndian.Uint64(x[8:]), binary.BigEndian.Uint64(y[8:])
	if lowB < lowA {
		high--
	}
	if high > 0 {
		return math.MaxUint64
	}
	return lowB - lowA
}

// overlaps reports the first pair of pools that share an address.
func overlaps(pools []Pool, layouts []layout) error {
	type piece struct {
		Range
		pool string
	}
	var all []piece
	for i, l := range layouts {
		for _, r := range l.ranges {
			all = append(all, piece{r, pools[i].Name})
		}
	}
	slices.SortFunc(all, func(a, b piece) int { return a.First.Compare(b.First) })
	for i := 1; i < len(all); i++ {
		if a, b := all[i-1], all[i]; !a.Last.Less(b.First) {
			return fmt.Errorf("pools %q and %q: Pool.Ranges: %s and %s overlap: %w", a.pool, b.pool,
				a.Range, b.Range, ErrInvalid)
		}
	}
	return nil
}
