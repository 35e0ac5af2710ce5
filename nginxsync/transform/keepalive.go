package transform

import (
	"fmt"
	"strconv"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

const (
	keepaliveTimes = 16    // the default of Rules.KeepaliveTimes
	keptMost       = 65536 // connections, all upstreams together, that the default may come to

	lastingRequests = 10_000 // of a connection over TLS
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

// lasting has a connection of an upstream over TLS take more requests than Nginx's default of
// 1,000: where the driver chooses, the next connection cannot resume the session, so that it costs
// a full handshake.
func (t *transform) lasting(keepalive *conf.Directive) {
	if t.rules.KeepaliveTimes == 1 {
		return // as in production
	}
	t.edit.InsertAfter(keepalive, fmt.Sprintf("keepalive_requests %d;", lastingRequests))
	t.changed(keepalive, "keepalive", "a connection over TLS takes %d requests, since the next "+
		"one makes a full handshake", lastingRequests)
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
