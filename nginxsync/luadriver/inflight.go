package luadriver

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync"
)

var _ nginxsync.Drainer = (*Driver)(nil)

// InFlight implements nginxsync.Drainer. Nginx waits up to two seconds for a worker that does not
// answer.
func (d *Driver) InFlight(ctx context.Context, addrs []netip.AddrPort) (f nginxsync.InFlight,
	err error) {
	defer d.observe("inflight", d.cfg.Now(), &err)
	var body strings.Builder
	keys := make([]netip.AddrPort, len(addrs))
	for i, addr := range addrs {
		keys[i] = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
		body.WriteString(keys[i].String() + "\n")
	}
	status, answer, err := d.do(ctx, http.MethodPost, "/v1/inflight", []byte(body.String()))
	if err != nil {
		return f, err
	}
	if status != http.StatusOK {
		return f, fmt.Errorf("nginx at %s: in flight: status %d: %s", d.cfg.Socket, status, answer)
	}
	f.Requests = make(map[netip.AddrPort]int, len(addrs))
	for _, addr := range addrs {
		f.Requests[addr] = 0
	}
	for line := range strings.Lines(answer) {
		if err := addLine(&f, addrs, strings.Fields(line)); err != nil {
			return nginxsync.InFlight{}, fmt.Errorf("nginx at %s: in flight: line %q: %w",
				d.cfg.Socket, strings.TrimSpace(line), err)
		}
	}
	return f, nil
}

// addLine adds the line of one worker: "worker SLOT PID N N …" or "leaving PID N N …".
func addLine(f *nginxsync.InFlight, addrs []netip.AddrPort, words []string) error {
	if len(words) == 0 {
		return nil
	}
	var numbers []string
	switch {
	case words[0] == "worker" && len(words) == 4 && words[3] == "?":
		w := nginxsync.Worker{}
		_, err := fmt.Sscan(words[1]+" "+words[2], &w.Slot, &w.PID)
		f.Silent = append(f.Silent, w)
		return err
	case words[0] == "worker" && len(words) >= 3:
		numbers = words[3:]
	case words[0] == "leaving" && len(words) >= 2:
		numbers = words[2:]
	default:
		return fmt.Errorf("want a worker")
	}
	if len(numbers) != len(addrs) {
		return fmt.Errorf("%d numbers, want %d", len(numbers), len(addrs))
	}
	for i, text := range numbers {
		n, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		f.Requests[addrs[i]] += n
	}
	return nil
}
