package agenthttp

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync"
)

// Health says whether the host may get requests.
type Health struct {
	OK bool `json:"ok"`
	// why not; empty when it may
	Reasons []string `json:"reasons"`
}

// look is the state of one Nginx as the agent has it and as Nginx itself says it now.
type look struct {
	status nginxsync.Status
	live   nginxsync.DriverState
	err    error // of live
}

// unfit returns why an Nginx should not get requests; empty when it should.
//
// A source that fails is no reason: all hosts see it at the same time, and the last routes are
// better than none. Neither are held changes. A fit Nginx answers, has routes, and all its workers
// have had the agent's routes within lag.
func (l look) unfit(now, started time.Time, lag time.Duration) string {
	s := l.status
	switch {
	case s.Fenced != "":
		return s.Fenced
	case l.err != nil:
		return l.err.Error()
	case s.Desired == nginxsync.Generation{}:
		return "no routes yet: no source has supplied any"
	case l.live.Applied == nginxsync.Generation{}:
		return "Nginx has no routes"
	case s.Resumed && now.Sub(started) < lag:
		return fmt.Sprintf("the sources have not spoken since the agent began %s ago",
			now.Sub(started).Round(time.Millisecond))
	case l.live.Verified(s.Desired):
		return ""
	}
	since := s.ChangedAt
	if s.VerifiedAt.After(since) {
		since = s.VerifiedAt
	}
	if late := now.Sub(since); late > lag {
		return fmt.Sprintf("not every worker has answered with generation %s for %s, %s are "+
			"allowed", s.Desired, late.Round(time.Millisecond), lag)
	}
	return ""
}

// within is ctx with a limit that says so in its cause.
func within(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %s", limit))
}

// look asks every Nginx.
func (h *Handler) look(ctx context.Context) []look {
	ctx, cancel := within(ctx, h.cfg.Timeout)
	defer cancel()
	looks := make([]look, len(h.cfg.Targets))
	var wg sync.WaitGroup
	for i, t := range h.cfg.Targets {
		wg.Go(func() {
			// the status first: a change between the two counts as verified, not as late
			looks[i].status = t.Agent.Status()
			looks[i].live, looks[i].err = t.Driver.State(ctx)
		})
	}
	wg.Wait()
	return looks
}

// health judges the host.
func (h *Handler) health(looks []look) Health {
	out := Health{Reasons: []string{}}
	if d := h.draining(); d.On {
		out.Reasons = append(out.Reasons, d.String())
	}
	now := h.cfg.Now()
	for i, l := range looks {
		if why := l.unfit(now, h.started, h.cfg.Lag); why != "" {
			out.Reasons = append(out.Reasons, h.cfg.Targets[i].Name+": "+why)
		}
	}
	out.OK = len(out.Reasons) == 0
	return out
}

// Health asks every Nginx and judges the host, as GET /healthz does.
func (h *Handler) Health(ctx context.Context) Health { return h.health(h.look(ctx)) }

func (h *Handler) healthz(w http.ResponseWriter, r *http.Request) error {
	health := h.Health(r.Context())
	code := http.StatusOK
	if !health.OK {
		code = http.StatusServiceUnavailable
	}
	reply(w, code, health)
	return nil
}

// reply answers with JSON.
func reply(w http.ResponseWriter, code int, body any) {
	text, err := json.MarshalIndent(body, "", "  ")
	if err != nil { // a source's own status that is no JSON
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = w.Write(append(text, '\n')) // fails when the client is gone
}
