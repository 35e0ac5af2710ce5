package agenthttp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/sluice-deploy/sluice/internal/atomicfile"
	"github.com/sluice-deploy/sluice/internal/strictjson"
	"github.com/sluice-deploy/sluice/nginxsync"
)

// Drain says whether an operator has taken the host out.
type Drain struct {
	On    bool      `json:"on"`
	By    string    `json:"by,omitempty"`
	Since time.Time `json:"since,omitzero"`
}

// String is such as "drained by ops since 2026-11-29T23:00:00Z".
func (d Drain) String() string {
	if !d.On {
		return "not drained"
	}
	text := "drained"
	if d.By != "" {
		text += " by " + d.By
	}
	return text + " since " + d.Since.UTC().Format(time.RFC3339)
}

// readDrain reads the drain of an earlier process.
func readDrain(file string) (d Drain, err error) {
	if file == "" {
		return d, nil
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	if err == nil {
		err = strictjson.Decode(text, &d)
	}
	if err != nil {
		return d, fmt.Errorf("%s: %w: remove it to put the host back", file, err)
	}
	return d, nil
}

func (h *Handler) draining() Drain {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.drain
}

// drained answers a request to drain the host, or to end that. Both may be asked again.
func (h *Handler) drained(on bool) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		var in struct {
			By string `json:"by"`
		}
		if err := read(r, &in); err != nil {
			return err
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		next := h.drain
		if next.On != on {
			next = Drain{}
			if on {
				next = Drain{On: true, By: in.By, Since: h.cfg.Now().UTC()}
			}
			if err := h.keep(next); err != nil {
				return err
			}
			h.drain = next
			h.cfg.Logger.Warn("drain", "on", on, "by", in.By)
		}
		reply(w, http.StatusOK, next)
		return nil
	}
}

// keep writes the file that a later process reads.
func (h *Handler) keep(d Drain) error {
	if h.cfg.DrainFile == "" {
		return nil
	}
	if !d.On {
		if err := os.Remove(h.cfg.DrainFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	text, err := json.Marshal(d)
	if err != nil {
		return err
	}
	return atomicfile.Write(h.cfg.DrainFile, append(text, '\n'), 0o644)
}

// Flight is how many requests are in flight to the instances in the routes.
type Flight struct {
	Requests int `json:"requests"`
	// Nginx whose requests are not known, or of which a worker does not answer, with the reason
	Unknown []string `json:"unknown"`
}

// patience is the time that Nginx waits for a worker that does not say what it has in flight.
const patience = 2 * time.Second

func (h *Handler) inFlight(w http.ResponseWriter, r *http.Request) error {
	type count struct {
		requests int
		unknown  string
	}
	counts := make([]count, len(h.cfg.Targets))
	var wg sync.WaitGroup
	for i, t := range h.cfg.Targets {
		wg.Go(func() { counts[i].requests, counts[i].unknown = h.count(r.Context(), t) })
	}
	wg.Wait()
	out := Flight{Unknown: []string{}}
	for i, c := range counts {
		out.Requests += c.requests
		if c.unknown != "" {
			out.Unknown = append(out.Unknown, h.cfg.Targets[i].Name+": "+c.unknown)
		}
	}
	reply(w, http.StatusOK, out)
	return nil
}

// count asks one Nginx for its requests in flight, and says why when it does not know all of them.
func (h *Handler) count(ctx context.Context, t Target) (requests int, unknown string) {
	drainer, ok := t.Driver.(nginxsync.Drainer)
	if !ok {
		return 0, "its driver does not count requests"
	}
	asked, cancel := within(ctx, h.cfg.Timeout)
	defer cancel()
	routes, err := t.Driver.Routes(asked)
	if err != nil {
		return 0, err.Error()
	}
	asked, cancel = within(ctx, h.cfg.Timeout+patience)
	defer cancel()
	flight, err := drainer.InFlight(asked, addresses(routes.Snapshot))
	if err != nil {
		return 0, err.Error()
	}
	for _, n := range flight.Requests {
		requests += n
	}
	if len(flight.Silent) > 0 {
		unknown = flight.String()
	}
	return requests, unknown
}

// addresses returns the addresses of all instances, each once.
func addresses(s nginxsync.Snapshot) (addrs []netip.AddrPort) {
	seen := map[netip.AddrPort]bool{}
	add := func(clusters map[string][]nginxsync.Instance) {
		for _, list := range clusters {
			for _, in := range list {
				if !seen[in.Addr] {
					seen[in.Addr] = true
					addrs = append(addrs, in.Addr)
				}
			}
		}
	}
	add(s.Baseline)
	for _, clusters := range s.Overlays {
		add(clusters)
	}
	for _, clusters := range s.Branches {
		add(clusters)
	}
	return addrs
}
