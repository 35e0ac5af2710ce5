package door

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync/atomic"
	"time"
)

// tunnel answers a CONNECT: RFC 9110, section 9.3.6. It returns when both directions have ended, or
// one has and the other is silent.
func (d *Door) tunnel(ctx context.Context, rw http.ResponseWriter, r *http.Request,
	at netip.AddrPort) error {
	nginx, err := d.dial(ctx, at, clientOf(r))
	if err != nil {
		answer(rw, r, http.StatusBadGateway, "unreachable", "Nginx does not answer at "+at.String()+
			".")
		return err
	}
	defer nginx.Close()
	client, buffered, err := http.NewResponseController(rw).Hijack()
	if err != nil {
		answer(rw, r, http.StatusInternalServerError, "tunnel",
			"This connection cannot be tunnelled.")
		return err
	}
	defer client.Close()
	stop := context.AfterFunc(ctx, func() {
		_, _ = client.Close(), nginx.Close()
	})
	defer stop()
	_ = client.SetDeadline(in(d.cfg.Header)) // the next write fails if this has
	if _, err := io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return err
	}
	// bytes that the client sent after its CONNECT without waiting
	early, err := buffered.Reader.Peek(buffered.Reader.Buffered())
	if err == nil && len(early) > 0 {
		_ = nginx.SetWriteDeadline(in(d.cfg.Header))
		_, err = nginx.Write(early)
	}
	if err != nil {
		return err
	}
	p := &pair{tunnel: d.cfg.Tunnel, half: d.cfg.HalfClosed}
	up := make(chan error, 1)
	go func() { up <- p.pump(nginx, client) }()
	err = errors.Join(p.pump(client, nginx), <-up)
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// pair is the two directions of a tunnel.
type pair struct {
	tunnel, half time.Duration
	closing      atomic.Bool // one direction has ended
	moved        atomic.Int64
}

// pump copies from src to dst until src ends, and closes dst for writing then. A direction that
// fails closes both.
func (p *pair) pump(dst, src net.Conn) error {
	err := p.copy(dst, src)
	if err != nil {
		return errors.Join(err, dst.Close(), src.Close())
	}
	p.closing.Store(true)
	if half, ok := dst.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_ = dst.SetReadDeadline(in(p.half)) // of the other direction
		return nil
	}
	return dst.Close()
}

// copy copies until src ends, or both directions are silent. The deadline for reading is set again
// as long as something moves; one for writing only ends a connection, since it loses bytes.
func (p *pair) copy(dst, src net.Conn) error {
	for seen := int64(-1); ; {
		idle := p.tunnel
		if p.closing.Load() {
			idle = p.half
		}
		_ = src.SetReadDeadline(in(idle))
		_ = dst.SetWriteDeadline(in(2 * idle))
		if p.closing.Load() && idle != p.half {
			continue // the other direction has ended meanwhile
		}
		n, err := io.Copy(dst, src)
		moved := p.moved.Add(n)
		if err == nil {
			return nil
		}
		var op *net.OpError
		if !errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &op) && op.Op == "write" {
			return err
		}
		if n == 0 && moved == seen {
			return fmt.Errorf("nothing came for %s: %w", idle, os.ErrDeadlineExceeded)
		}
		seen = moved
	}
}
