package vip

import (
	"encoding/binary"
	"maps"
	"math"
	"net/netip"
)

// The interface identifiers of subnet anycast addresses, the 128 of RFC 2526, section 2: for a
// subnet of 64 bits, which is every one in use (RFC 4291, section 2.5.4).
const (
	firstAnycast = 0xfdff_ffff_ffff_ff80
	lastAnycast  = 0xfdff_ffff_ffff_ffff
)

// anycastSubnets is in how many subnets of 64 bits a range has its anycast addresses reserved: the
// first ones, and the last.
const anycastSubnets = 16

// reserved are the addresses of r, which was written as text, that no single host is given, each
// with the reason.
func (r Range) reserved(text string) map[netip.Addr]string {
	found := map[netip.Addr]string{}
	prefix, err := netip.ParsePrefix(text)
	if r.First.Is4() {
		if err == nil && prefix.Bits() < 31 {
			found[r.First], found[r.Last] = "network address", "broadcast address"
		}
		return found
	}
	first, last := upperHalf(r.First), upperHalf(r.Last)
	for n := range min(last-first, anycastSubnets-1) {
		maps.Copy(found, r.anycast(first+n))
	}
	maps.Copy(found, r.anycast(last))
	if err == nil && prefix.Bits() < 127 {
		found[r.First] = "subnet-router anycast address"
	}
	return found
}

// anycast are the anycast addresses of r in the subnet whose upper 64 bits are upper.
func (r Range) anycast(upper uint64) map[netip.Addr]string {
	low, high := uint64(0), uint64(math.MaxUint64)
	if upper == upperHalf(r.First) {
		low = lowerHalf(r.First)
	}
	if upper == upperHalf(r.Last) {
		high = lowerHalf(r.Last)
	}
	found := map[netip.Addr]string{}
	if low == 0 {
		found[halves(upper, 0)] = "subnet-router anycast address"
	}
	for n := max(low, firstAnycast); n <= min(high, lastAnycast); n++ {
		found[halves(upper, n)] = "subnet anycast address"
	}
	return found
}

func upperHalf(a netip.Addr) uint64 {
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8])
}

func lowerHalf(a netip.Addr) uint64 {
	b := a.As16()
	return binary.BigEndian.Uint64(b[8:])
}

// halves is the IPv6 address with these upper and lower 64 bits.
func halves(upper, lower uint64) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], upper)
	binary.BigEndian.PutUint64(b[8:], lower)
	return netip.AddrFrom16(b)
}
