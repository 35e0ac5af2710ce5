package rfc2136_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/bind"
	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/provision"
	"github.com/sluice-deploy/sluice/vip/provision/rfc2136"
)

// network is a way to a server on which updates can be held up, to arrive later, and on which a
// fault waits for a request.
type network struct {
	addr, server string

	mu      sync.Mutex
	holding bool
	held    [][]byte // updates, with their length before them
	then    func()   // called when one is held up
	waiting *fault   // nil when it strikes, or has struck
	struck  chan struct{}
}

func startNetwork(t *testing.T, server string) *network {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	n := &network{addr: l.Addr().String(), server: server}
	var carried sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); carried.Wait() })
	carried.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			carried.Go(func() { n.carry(client) })
		}
	})
	return n
}

// carry carries one connection, which has one request.
func (n *network) carry(client net.Conn) {
	defer client.Close()
	request, err := message(client)
	if err != nil {
		return
	}
	if n.hold(request) {
		_, _ = io.Copy(io.Discard, client) // until the client gives up
		return
	}
	f := n.meets(request)
	if f != nil && !f.answered {
		n.strike(f)
	}
	server, err := net.Dial("tcp", n.server)
	if err != nil {
		return
	}
	defer server.Close()
	if _, err := server.Write(request); err != nil {
		return
	}
	if f != nil && f.answered {
		_, _ = message(server)
		n.strike(f)
		return
	}
	go func() {
		_, _ = io.Copy(io.Discard, client)
		_ = server.Close()
	}()
	_, _ = io.Copy(client, server)
}

// hold keeps the request if it is an update and these are held up.
func (n *network) hold(request []byte) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.holding || opcode(request) != dns.OpcodeUpdate {
		return false
	}
	n.held = append(n.held, request)
	n.then()
	return true
}

// opcode is the operation of a request (RFC 1035 section 4.1.1). Its byte comes after the length
// and the ID.
func opcode(request []byte) int { return int(request[4] >> 3 & 0xf) }

func (n *network) whenHeld(do func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.then = do
}

func (n *network) holdUpdates(on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.holding = on
}

// message reads one message, with its length before it.
func message(r io.Reader) ([]byte, error) {
	length := make([]byte, 2)
	if _, err := io.ReadFull(r, length); err != nil {
		return nil, err
	}
	all := append(length, make([]byte, binary.BigEndian.Uint16(length))...)
	_, err := io.ReadFull(r, all[2:])
	return all, err
}

// arrive brings the updates that were held up to the server, and returns its answers.
func (n *network) arrive(t *testing.T) (codes []string) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, update := range n.held {
		server, err := net.Dial("tcp", n.server)
		require.NoError(t, err)
		_, err = server.Write(update)
		require.NoError(t, err)
		answer, err := message(server)
		require.NoError(t, err)
		codes = append(codes, dns.RcodeToString[int(answer[5]&0xf)])
		require.NoError(t, server.Close())
	}
	n.held = nil
	return codes
}

// An update that got no answer, and the withdrawal of another name, reach the server when the
// driver has gone on: it refuses both.
func TestLateUpdateIsRefused(t *testing.T) {
	t.Parallel()
	s := bind.Start(t, bind.Zone{Name: zone})
	way := startNetwork(t, s.Addr)
	cfg := config(s)
	cfg.Server = way.addr
	d := driver(t, cfg)
	apply := func(leases ...vip.Lease) error {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		way.whenHeld(cancel)
		_, err := d.ApplyLeases(ctx, leases)
		return err
	}
	one, two := lease("t-1", "10.0.0.1"), lease("t-2", "10.0.0.2")
	require.NoError(t, apply(one))
	for _, late := range [][]vip.Lease{{one, two}, {}} {
		way.holdUpdates(true)
		require.ErrorIs(t, apply(late...), context.Canceled)
		way.holdUpdates(false)
		require.NoError(t, apply(one))
		require.Equal(t, []string{"NXRRSET"}, way.arrive(t))
		require.Equal(t, map[string][]string{"t-1": {"10.0.0.1"}}, names(t, s, zone))
	}
	require.NoError(t, apply())

	// so it is when the update was to change the fence
	way.holdUpdates(true)
	d = driver(t, cfg)
	require.ErrorIs(t, apply(two), context.Canceled)
	way.holdUpdates(false)
	require.NoError(t, apply(one))
	require.Equal(t, []string{"NXRRSET"}, way.arrive(t))
	require.NoError(t, apply(two))
	require.Equal(t, map[string][]string{"t-2": {"10.0.0.2"}}, names(t, s, zone))
}

// A Keeper that has ended leaves no name, also when an update of it was held up until then.
func TestKeeperEndsBeforeLateUpdate(t *testing.T) {
	t.Parallel()
	s := bind.Start(t, bind.Zone{Name: zone})
	way := startNetwork(t, s.Addr)
	cfg := config(s)
	cfg.Server = way.addr
	p, err := vip.ParsePool("p", "10.0.0.1")
	require.NoError(t, err)
	a, err := vip.Open(t.Context(), vip.Config{Store: vip.NewMemStore(), Pools: []vip.Pool{p}})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	k := &provision.Keeper{Allocator: a, Driver: driver(t, cfg), Retry: time.Millisecond,
		Withdraw: time.Minute}
	go func() { ended <- k.Run(ctx) }()
	held := make(chan struct{})
	way.whenHeld(sync.OnceFunc(func() { close(held) }))
	testbed.Poll(t, "the fence of the driver", func() error {
		if n := len(fences(t, s)); n != 1 {
			return fmt.Errorf("there are %d", n)
		}
		return nil
	})
	way.holdUpdates(true)
	_, err = a.Allocate(t.Context(), vip.Request{Owner: vip.Owner{Task: "t-1"}})
	require.NoError(t, err)
	<-held
	way.holdUpdates(false)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	require.NotContains(t, way.arrive(t), "NOERROR")
	require.Empty(t, names(t, s, zone))
}

// fences transfers the zone and lists the values of the fences in it.
func fences(t *testing.T, s *bind.Server) (values []string) {
	t.Helper()
	m := new(dns.Msg).SetQuestion("sluice-test._sluice."+zone+".", dns.TypeTXT)
	answer, _, err := (&dns.Client{Net: "tcp"}).ExchangeContext(t.Context(), m, s.Addr)
	require.NoError(t, err)
	for _, rr := range answer.Answer {
		values = append(values, rr.(*dns.TXT).Txt...)
	}
	return values
}

// Of two drivers of one owner the server refuses the earlier one, until that takes over in turn: a
// name that is not as a driver has left it is no name of another owner.
func TestDriversOfOneOwner(t *testing.T) {
	t.Parallel()
	s := bind.Start(t, bind.Zone{Name: zone})
	first, second := driver(t, config(s)), driver(t, config(s))
	one, two := lease("t-1", "10.0.0.1"), lease("t-2", "10.0.0.2")
	apply := func(d *rfc2136.Driver, leases ...vip.Lease) error {
		_, err := d.ApplyLeases(t.Context(), leases)
		return err
	}
	require.NoError(t, apply(first, one))
	require.NoError(t, apply(second, one, two))
	require.ErrorIs(t, apply(first), rfc2136.ErrFenced)
	require.Len(t, names(t, s, zone), 2)
	require.NoError(t, apply(first))
	require.Empty(t, names(t, s, zone))
	require.ErrorIs(t, apply(second, one, lease("t-2", "10.0.0.3")), rfc2136.ErrFenced)
	require.NoError(t, apply(second, one))
	require.Equal(t, map[string][]string{"t-1": {"10.0.0.1"}}, names(t, s, zone))
}
