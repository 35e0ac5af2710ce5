package web

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// A client may send guessBurst wrong tokens at once, and one more each guessEvery.
const (
	guessBurst   = 5
	guessEvery   = 3 * time.Second
	guessClients = 10_000 // that are counted one by one; all others count as one
)

// throttle counts the wrong tokens of each client. It is safe for concurrent use.
type throttle struct {
	now func() time.Time

	mu    sync.Mutex
	until map[netip.Prefix]time.Time // when a client has all its guesses again
}

// wait returns how long the client waits before its next token is looked at; 0 for not at all.
func (t *throttle) wait(client netip.Prefix) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	free, now := t.until[t.known(client)].Add(-(guessBurst-1)*guessEvery), t.now()
	if !free.After(now) {
		return 0
	}
	return free.Sub(now)
}

// wrong counts a wrong token of the client.
func (t *throttle) wrong(client netip.Prefix) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if t.until == nil {
		t.until = map[netip.Prefix]time.Time{}
	}
	if len(t.until) >= guessClients {
		for other, until := range t.until {
			if until.Before(now) {
				delete(t.until, other)
			}
		}
	}
	client = t.known(client)
	until := t.until[client]
	if until.Before(now) {
		until = now
	}
	t.until[client] = until.Add(guessEvery)
}

// known returns the client, or the prefix that stands for all clients beyond the limit.
func (t *throttle) known(client netip.Prefix) netip.Prefix {
	if _, found := t.until[client]; !found && len(t.until) >= guessClients {
		return netip.Prefix{}
	}
	return client
}

// client is the address that a request comes from: one of IPv4, or the 64 bits that one place of
// IPv6 has.
func (w *web) client(r *http.Request) netip.Prefix {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	if w.TLSProxy {
		if values := r.Header.Values("X-Forwarded-For"); len(values) > 0 {
			last := values[len(values)-1]
			host = strings.TrimSpace(last[strings.LastIndexByte(last, ',')+1:])
		}
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Prefix{}
	}
	bits := 32
	if addr = addr.Unmap(); addr.Is6() {
		bits = 64
	}
	prefix, _ := addr.WithZone("").Prefix(bits) // both fit
	return prefix
}
