package transform

import (
	"strconv"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/internal/listen"
)

// place returns the host of the test Nginx's socket and its ports. It returns false for a unix
// socket.
func (l *listenDirective) place() (host string, ports listen.Address, ok bool) {
	if strings.HasPrefix(l.address, "unix:") {
		return "", listen.Address{}, false
	}
	colon := strings.LastIndex(l.address, ":") + 1
	host = l.address[:colon]
	ports, ok = listen.Parse(l.address[colon:])
	if l.quic() {
		host += "quic " // a socket of UDP
	}
	return host, ports, ok
}

// only is the listen, narrowed to one port of the test Nginx.
func (l *listenDirective) only(port int) *listenDirective {
	_, to, _ := l.place()
	one := *l
	one.address = l.address[:strings.LastIndex(l.address, ":")+1] + strconv.Itoa(port)
	colon := strings.LastIndex(l.from, ":")
	if from, ok := listen.Parse(l.from[colon+1:]); ok {
		one.from = l.from[:colon+1] + strconv.Itoa(from.First+port-to.First)
	}
	return &one
}

// withinRanges returns the sockets of a port that is in a range of ports of one listen and in
// another listen, each at the first port that the two have in common.
func (s *sockets) withinRanges() []*socket {
	var found sockets
	seen := map[string]bool{}
	for _, a := range s.all {
		if !strings.Contains(a.listen.address, "-") { // a range has it, and most trees have none
			continue
		}
		host, ports, ok := a.listen.place()
		if !ok || ports.First == ports.Last {
			continue
		}
		for _, b := range s.all {
			other, its, ok := b.listen.place()
			port := max(ports.First, its.First)
			key := host + strconv.Itoa(port)
			if !ok || other != host || b.listen.address == a.listen.address || seen[key] ||
				port > min(ports.Last, its.Last) {
				continue
			}
			seen[key] = true
			for _, c := range s.all {
				at, its, ok := c.listen.place()
				if ok && at == host && its.First <= port && port <= its.Last {
					found.add(c.server, c.listen.only(port))
				}
			}
		}
	}
	return found.order
}
