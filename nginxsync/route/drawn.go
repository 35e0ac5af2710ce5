package route

import (
	"math"
	"net/netip"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

// geo is the value of the longest network that has the address, of a range that has it, or the
// default.
func (w *walk) geo(n conf.Node) (string, error) {
	source := "$remote_addr"
	if n.NumArgs() == 2 {
		source = n.Arg(0)
	}
	text, err := w.expand(n.Directive, source)
	if err != nil {
		return "", err
	}
	value, best, ranges := "", -1, false
	addr, parseErr := netip.ParseAddr(text)
	for c := range n.Children() {
		key := c.Name()
		switch {
		case key == "ranges":
			ranges = true
			continue
		case key == "proxy" || key == "proxy_recursive" || key == "delete":
			return "", undecided(c.Directive, "geo with %s", key)
		case key == "include" || c.NumArgs() != 1:
			continue
		case key == "default":
			if best < 0 {
				value = c.Arg(0)
			}
			continue
		}
		if parseErr != nil {
			continue // the value of 255.255.255.255, which no network has, is the default
		}
		if from, to, ok := strings.Cut(key, "-"); ranges && ok {
			a, errA := netip.ParseAddr(from)
			b, errB := netip.ParseAddr(to)
			if errA != nil || errB != nil {
				return "", undecided(c.Directive, "range %s", key)
			}
			if a.Compare(addr.Unmap()) <= 0 && addr.Unmap().Compare(b) <= 0 {
				value, best = c.Arg(0), 0
			}
			continue
		}
		p, err := netip.ParsePrefix(key)
		if err != nil {
			single, err := netip.ParseAddr(key)
			if err != nil {
				return "", undecided(c.Directive, "network %s", key)
			}
			p = netip.PrefixFrom(single, single.BitLen())
		}
		if p.Contains(addr.Unmap()) && p.Bits() > best {
			value, best = c.Arg(0), p.Bits()
		}
	}
	return value, nil
}

// split is the part of split_clients that the hash of the text falls into.
func (w *walk) split(n conf.Node) (string, error) {
	text, err := w.expand(n.Directive, n.Arg(0))
	if err != nil {
		return "", err
	}
	hash, last := murmur2(text), uint64(0)
	for c := range n.Children() {
		if c.NumArgs() != 1 || c.Name() == "include" {
			continue
		}
		if c.Name() == "*" {
			return c.Arg(0), nil
		}
		hundredths, ok := percent(c.Name())
		if !ok {
			return "", undecided(c.Directive, "share %s", c.Name())
		}
		if last += hundredths * math.MaxUint32 / 10000; uint64(hash) < last {
			return c.Arg(0), nil
		}
	}
	return "", nil
}

// percent reads a share such as 0.5% in hundredths of a percent.
func percent(text string) (uint64, bool) {
	whole, ok := strings.CutSuffix(text, "%")
	whole, fraction, _ := strings.Cut(whole, ".")
	if len(fraction) > 2 || !ok {
		return 0, false
	}
	var n uint64
	for _, c := range []byte(whole + (fraction + "00")[:2]) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, n <= 10000
}

// murmur2 is MurmurHash2 of 32 bits with the seed 0, which Nginx takes.
func murmur2(text string) uint32 {
	const m = 0x5bd1e995
	h := uint32(len(text))
	for len(text) >= 4 {
		k := uint32(text[0]) | uint32(text[1])<<8 | uint32(text[2])<<16 | uint32(text[3])<<24
		k *= m
		k ^= k >> 24
		k *= m
		h = h*m ^ k
		text = text[4:]
	}
	for i := len(text) - 1; i >= 0; i-- {
		h ^= uint32(text[i]) << (8 * i)
		if i == 0 {
			h *= m
		}
	}
	h ^= h >> 13
	h *= m
	return h ^ h>>15
}
