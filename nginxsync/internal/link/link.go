// Package link is a TCP link for tests whose connections can stay open and go silent.
package link

import (
	"io"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Link is a TCP link to a server whose connections can stay open and go silent, as when a machine
// between the two has forgotten them. It is safe for concurrent use.
type Link struct {
	Addr     string // that clients connect to
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

// New is a link to the address of a server. It ends with the test.
func New(t *testing.T, to string) *Link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l := &Link{Addr: listener.Addr().String(), to: to, listener: listener}
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

func (l *Link) accept() {
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
func (l *Link) copy(p *pair, to io.WriteCloser, from io.Reader) {
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

// Silence makes the connections half open, and with all the new ones, too.
func (l *Link) Silence(all bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = all
	for _, p := range l.pairs {
		p.silent = true
	}
}

// Aim has new connections go to another server.
func (l *Link) Aim(to string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.to = to
}

// Heal lets new connections work. The silent ones stay so.
func (l *Link) Heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = false
}
