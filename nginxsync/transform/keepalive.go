package transform

import (
	"strconv"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

const (
	keepaliveTimes = 16    // the default of Rules.KeepaliveTimes
	keptMost       = 65536 // connections, all upstreams together, that the default may come to
)

// pool has an upstream of the driver keep more connections than production's: those of all versions
// on all VIPs are in one pool, and where it is too small, each request closes the connection of
// another VIP and opens one of its own.
func (t *transform) pool(keepalive conf.Node) {
	n, err := strconv.Atoi(keepalive.Arg(0))
	if err != nil || n <= 0 || n > keptMost {
		return // Nginx refuses it, or it is large enough
	}
	if t.keepalive == 0 {
		t.keepalive = t.keepaliveTimes()
	}
	if t.keepalive > 1 {
		t.edit.ReplaceArg(keepalive.Directive, 0, strconv.Itoa(n*t.keepalive))
		t.changed(keepalive.Directive, "keepalive", "the versions on all VIPs share %d connections, "+
			"production's %d times %d", n*t.keepalive, n, t.keepalive)
	}
}

func (t *transform) keepaliveTimes() int {
	if t.rules.KeepaliveTimes > 0 {
		return t.rules.KeepaliveTimes
	}
	total := 0
	for n := range t.tree.Find("http", "upstream", "keepalive") {
		if size, err := strconv.Atoi(n.Arg(0)); err == nil && size > 0 && size <= keptMost {
			total += size
		}
	}
	return min(keepaliveTimes, max(1, keptMost/max(total, 1)))
}
