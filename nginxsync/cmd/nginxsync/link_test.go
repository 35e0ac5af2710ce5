//go:build linux

package main

import (
	"io"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// link is a TCP link to a server whose connections can stay open and go silent, as when a machine
// between the two has forgotten them.
type link struct {
	addr     string
	listener net.Listener
	wg       sync.WaitGroup

	mu     sync.Mutex
	to     string
	dead   bool // new connections are silent, too
	closed bool
	pairs  []*pair
}

// pair are the two ends of one connection.
type pair struct {
	near, far net.Conn
	silent    bool
}

func newLink(t *testing.T, to string) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l := &link{addr: listener.Addr().String(), to: to, listener: listener}
	l.wg.Go(l.accept)
	t.Cleanup(func() {
		listener.Close()
		l.mu.Lock()
		l.closed = true
		for _, p := range l.pairs {
			p.near.Close()
			p.far.Close()
		}
		l.mu.Unlock()
		l.wg.Wait()
	})
	return l
}

func (l *link) accept() {
	for {
		near, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.mu.Lock()
		to := l.to
		l.mu.Unlock()
		far, err := net.Dial("tcp", to)
		if err != nil {
			near.Close()
			continue
		}
		l.mu.Lock()
		p := &pair{near: near, far: far, silent: l.dead}
		l.pairs = append(l.pairs, p)
		if l.closed {
			near.Close()
			far.Close()
		}
		l.mu.Unlock()
		l.wg.Go(func() { l.copy(p, far, near) })
		l.wg.Go(func() { l.copy(p, near, far) })
	}
}

// copy passes bytes on; a silent connection swallows them, and passes no end on.
func (l *link) copy(p *pair, to io.WriteCloser, from io.Reader) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		l.mu.Lock()
		silent := p.silent
		l.mu.Unlock()
		if !silent && n > 0 {
			if _, failed := to.Write(buffer[:n]); failed != nil {
				err = failed
			}
		}
		if err != nil {
			if !silent {
				to.Close()
			}
			return
		}
	}
}

// silence makes the connections half open, and with all those that come, too.
func (l *link) silence(all bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = all
	for _, p := range l.pairs {
		p.silent = true
	}
}

// aim has new connections go to another server.
func (l *link) aim(to string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.to = to
}

// heal lets new connections work. The silent ones stay so.
func (l *link) heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = false
}
