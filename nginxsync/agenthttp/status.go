package agenthttp

import (
	"cmp"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/healthcheck"
)

// Status is the answer of GET /v1/status.
type Status struct {
	Health  Health         `json:"health"`
	Drain   Drain          `json:"drain"`
	Started time.Time      `json:"started"`
	Sources []SourceStatus `json:"sources"`
	// Checks are the checks of the instances; nil without any
	Checks *healthcheck.Status `json:"checks,omitempty"`
	Nginx  []NginxStatus       `json:"nginx"`
}

// SourceStatus is the state of one source.
type SourceStatus struct {
	Name   string `json:"name"`
	Kind   string `json:"kind"`
	Detail any    `json:"detail,omitempty"`
}

// NginxStatus is the state of one Nginx.
type NginxStatus struct {
	Name string `json:"name"`
	// Lag is for how long, in seconds, the workers have not all answered with the desired routes; 0
	// when they do
	Lag float64 `json:"lag"`
	// Term and Writer name the agent that pushed last, as Nginx says
	Term   uint64 `json:"term"`
	Writer string `json:"writer"`
	// Unreachable is why Nginx does not say; empty when it does
	Unreachable string           `json:"unreachable"`
	Agent       nginxsync.Status `json:"agent"`
	// Cutoff is nil where nothing ends connections
	Cutoff *Cutoff `json:"cutoff,omitempty"`
}

// Cutoff says how the ends of connections to instances that are gone go. It is cutoff.Status, whose
// package needs more than the standard library.
type Cutoff struct {
	Waiting   int    `json:"waiting"`
	Ended     int    `json:"ended"`
	Error     string `json:"error"`
	FileError string `json:"fileError"`
}

// Lag is for how long, as of now, not every worker has answered with the desired routes.
func Lag(s nginxsync.Status, now time.Time) time.Duration {
	if s.Verified == s.Desired {
		return 0
	}
	return max(0, now.Sub(s.ChangedAt))
}

func (h *Handler) current(r *http.Request) Status {
	looks := h.look(r.Context())
	out := Status{Health: h.health(looks), Drain: h.draining(), Started: h.started.UTC(),
		Sources: []SourceStatus{}, Nginx: []NginxStatus{}}
	for _, s := range h.cfg.Sources {
		state := SourceStatus{Name: s.Name, Kind: s.Kind}
		if s.Status != nil {
			state.Detail = s.Status()
		}
		out.Sources = append(out.Sources, state)
	}
	if h.cfg.Checks != nil {
		checks := h.cfg.Checks()
		out.Checks = &checks
	}
	now := h.cfg.Now()
	for i, l := range looks {
		state := NginxStatus{Name: h.cfg.Targets[i].Name, Lag: Lag(l.status, now).Seconds(),
			Term: l.live.Epoch, Writer: l.live.Writer, Agent: l.status}
		if l.err != nil {
			state.Unreachable = l.err.Error()
		}
		if f := h.cfg.Targets[i].Cutoff; f != nil {
			status := f()
			state.Cutoff = &status
		}
		out.Nginx = append(out.Nginx, state)
	}
	return out
}

func (h *Handler) status(w http.ResponseWriter, r *http.Request) error {
	reply(w, http.StatusOK, h.current(r))
	return nil
}

// Held is a change that a guard holds, with the ID for POST /v1/release.
type Held struct {
	ID    string `json:"id"`
	Nginx string `json:"nginx"`
	nginxsync.Held
}

// HeldID is the id of the changes of a cluster: "baseline/CLUSTER", "VIP/CLUSTER" on a VIP, or
// "@BRANCH/CLUSTER" of a branch.
func HeldID(h nginxsync.Held) string {
	switch {
	case h.VIP.IsValid():
		return h.VIP.String() + "/" + h.Cluster
	case h.Branch != "":
		return "@" + h.Branch + "/" + h.Cluster
	}
	return "baseline/" + h.Cluster
}

// intent is the intent of an id: of a cluster, or of a VIP or branch with all its clusters.
func intent(id string) (in nginxsync.Intent, err error) {
	scope, cluster, named := strings.Cut(id, "/")
	branch, isBranch := strings.CutPrefix(scope, "@")
	switch {
	case isBranch:
		in.Branch = branch
		if branch == "" {
			err = nginxsync.ErrInvalid
		}
	case scope != "baseline":
		in.VIP, err = netip.ParseAddr(scope)
	}
	in.Cluster = cluster
	if err != nil || named == (cluster == "") || scope == "baseline" && !named {
		return in, fmt.Errorf("id %.128q: want baseline/CLUSTER, VIP/CLUSTER, VIP, "+
			"@BRANCH/CLUSTER or @BRANCH, as in the list of held changes: %w", id, nginxsync.ErrInvalid)
	}
	return in, nil
}

func (h *Handler) held(w http.ResponseWriter, _ *http.Request) error {
	out := struct {
		Held []Held `json:"held"`
	}{[]Held{}}
	for _, t := range h.cfg.Targets {
		for _, held := range t.Agent.Status().Held {
			out.Held = append(out.Held, Held{HeldID(held), t.Name, held})
		}
	}
	slices.SortStableFunc(out.Held, func(a, b Held) int { return cmp.Compare(a.ID, b.ID) })
	reply(w, http.StatusOK, out)
	return nil
}

// release lets a change take effect on every Nginx whose guard holds it.
func (h *Handler) release(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		ID string `json:"id"`
		By string `json:"by"`
	}
	if err := read(r, &in); err != nil {
		return err
	}
	i, err := intent(in.ID)
	if err != nil {
		return err
	}
	i.By = in.By
	out := struct {
		ID       string   `json:"id"`
		Released []string `json:"released"` // names of Nginx
	}{in.ID, []string{}}
	for _, t := range h.cfg.Targets {
		if err = t.Agent.Release(i); err == nil {
			out.Released = append(out.Released, t.Name)
		}
	}
	if len(out.Released) == 0 {
		return err
	}
	h.cfg.Logger.Warn("release", "id", in.ID, "by", in.By, "nginx", out.Released)
	reply(w, http.StatusOK, out)
	return nil
}
