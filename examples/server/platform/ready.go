package platform

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-deploy/sluice/vip"
)

// startGrace is how long after Ready an instance that does not come up keeps Serves from success.
const startGrace = 30 * time.Second

// Serves returns nil when VIPs answer: Run has been through the changes that a crash had cut off,
// every worker of Nginx answers with the newest routes, and Nginx accepts connections on the VIPs.
// After a start the instances are up once, too, or have failed for 30 s; later on one that ends by
// itself is its task's fault and not the server's.
func (p *Platform) Serves(ctx context.Context) error {
	select {
	case <-p.ready:
	default:
		return errors.New("finishing what a crash has cut off")
	}
	if _, err := p.driver.State(ctx); err != nil {
		return fmt.Errorf("state of Nginx: %w", err)
	}
	revision := p.routes.Revision()
	if status := p.routes.Agent().Status(); status.VerifiedRevision < revision {
		return fmt.Errorf("routes: every worker of Nginx answers with %d, the newest are %d: %s",
			status.VerifiedRevision, revision, status.LastError)
	}
	if err := p.dial(ctx, p.someVIPs()); err != nil {
		return fmt.Errorf("VIP: %w", err)
	}
	if p.up.Load() {
		return nil
	}
	active, err := p.active(ctx)
	if err != nil {
		return err
	}
	var addrs []netip.AddrPort
	for _, i := range active {
		addrs = append(addrs, i.Addr)
	}
	if err := p.dial(ctx, addrs); err != nil && time.Since(p.readySince) < startGrace {
		return fmt.Errorf("instance: %w", err)
	}
	p.up.Store(true)
	return nil
}

// someVIPs are addresses on which Nginx has to answer: up to eight with a task, else the first of a
// pool.
func (p *Platform) someVIPs() (list []netip.AddrPort) {
	port := uint16(p.config.NginxPort)
	for _, lease := range p.leases.List(vip.Query{States: []vip.State{vip.Leased}}) {
		if list = append(list, netip.AddrPortFrom(lease.Addr, port)); len(list) == 8 {
			return list
		}
	}
	pool, err := p.config.pool()
	if err != nil || len(list) > 0 || len(pool.Ranges) == 0 {
		return list
	}
	addr := pool.Ranges[0].Last
	if addr != pool.Ranges[0].First {
		addr = addr.Prev() // the last may be reserved
	}
	return append(list, netip.AddrPortFrom(addr, port))
}

// dial returns why one of the addresses takes no connection, or nil.
func (p *Platform) dial(ctx context.Context, addrs []netip.AddrPort) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for _, addr := range addrs {
		group.Go(func() error {
			var dialer net.Dialer
			c, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(addr.Addr().String(),
				strconv.Itoa(int(addr.Port()))))
			if err != nil {
				return err
			}
			return c.Close()
		})
	}
	return group.Wait()
}
