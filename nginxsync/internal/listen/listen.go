// Package listen reads the address of a listen directive as Nginx does.
package listen

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// Address is where a listen directive listens, unless that is a unix socket.
type Address struct {
	// Host is an IPv4 address, an IPv6 address in brackets, or a name that Nginx resolves when it
	// starts. It is "" for all IPv4 addresses.
	Host string
	// First and Last are the ports, from 1 to 65535. They differ for a range of ports only.
	First, Last int
}

var portsOnly = regexp.MustCompile(`^[0-9]+(-[0-9]+)?$`)

// Parse reads the first argument of a listen directive. It returns false for a unix socket and for
// an argument that Nginx refuses. A host without a port listens on port 80.
func Parse(value string) (Address, bool) {
	if portsOnly.MatchString(value) {
		first, last, ok := ports(value)
		return Address{First: first, Last: last}, ok
	}
	host, after, colon := value, "80", false
	switch {
	case strings.HasPrefix(value, "unix:") || strings.Contains(value, "/"):
		return Address{}, false
	case strings.HasPrefix(value, "["):
		end := strings.IndexByte(value, ']')
		addr, err := netip.ParseAddr(value[1:max(end, 1)])
		if err != nil || !addr.Is6() || addr.Zone() != "" {
			return Address{}, false
		}
		host = value[:end+1]
		if rest := value[end+1:]; rest != "" {
			after, colon = strings.CutPrefix(rest, ":")
			if !colon {
				return Address{}, false
			}
		}
	default:
		if h, p, ok := strings.Cut(value, ":"); ok {
			host, after = h, p
		}
		if host == "" {
			return Address{}, false
		}
	}
	first, last, ok := ports(after)
	if host == "*" || host == "0.0.0.0" {
		host = ""
	}
	return Address{Host: host, First: first, Last: last}, ok
}

// Addr returns the host as an address, unspecified for all addresses of its family. It returns
// false for a name.
func (a Address) Addr() (netip.Addr, bool) {
	if a.Host == "" {
		return netip.IPv4Unspecified(), true
	}
	addr, err := netip.ParseAddr(strings.Trim(a.Host, "[]"))
	return addr, err == nil
}

// ports reads a port or a range such as 8000-8010.
func ports(text string) (first, last int, ok bool) {
	from, to, isRange := strings.Cut(text, "-")
	if !isRange {
		to = from
	}
	first, ok1 := port(from)
	last, ok2 := port(to)
	return first, last, ok1 && ok2 && first <= last
}

func port(text string) (int, bool) {
	n, err := strconv.Atoi(text)
	digits := strings.Trim(text, "0123456789") == "" // no sign
	return n, err == nil && digits && n > 0 && n < 1<<16
}
