package web

import (
	"context"
	_ "embed"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/examples/server/instance"
	"github.com/sluice-deploy/sluice/examples/server/platform"
	"github.com/sluice-deploy/sluice/internal/httpproblem"
	"github.com/sluice-deploy/sluice/promote"
)

//go:embed openapi.json
var openapi []byte

// route is one operation of the API; openapi.json describes the same ones, which a test holds.
type route struct {
	method, path string
	handler      http.Handler
}

func (w *web) routes() []route {
	p := w.Platform
	return []route{
		{"GET", "/openapi.json", http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "application/json")
			_, _ = rw.Write(openapi)
		})},
		{"GET", "/health", get(w, func(r *http.Request) (any, error) {
			return w.health(r.Context()), nil
		})},
		{"GET", "/templates", get(w, func(*http.Request) (any, error) {
			return p.Catalog().Templates(), nil
		})},
		{"GET", "/sources", get(w, func(*http.Request) (any, error) { return p.Sources() })},
		{"PUT", "/sources/{source}", get(w, func(r *http.Request) (any, error) {
			return struct{}{}, p.PutSource(r.PathValue("source"), r.Body)
		})},
		{"DELETE", "/sources/{source}", get(w, func(r *http.Request) (any, error) {
			return struct{}{}, p.DeleteSource(r.PathValue("source"))
		})},
		{"GET", "/builds", get(w, func(r *http.Request) (any, error) {
			return list(p.Builds(r.Context()))
		})},
		{"POST", "/builds", http.HandlerFunc(w.submitBuild)},
		{"GET", "/builds/{build}", get(w, func(r *http.Request) (any, error) {
			return p.Build(r.Context(), r.PathValue("build"))
		})},
		{"DELETE", "/builds/{build}", get(w, func(r *http.Request) (any, error) {
			actor, err := actor(r)
			if err != nil {
				return nil, err
			}
			return p.CancelBuild(r.Context(), r.PathValue("build"), actor,
				r.FormValue("reason"))
		})},
		{"GET", "/builds/{build}/events", http.HandlerFunc(w.buildEvents)},
		{"GET", "/builds/{build}/log", http.HandlerFunc(w.buildLog)},
		{"GET", "/versions", get(w, func(r *http.Request) (any, error) {
			return p.Versions(r.Context(), r.FormValue("cluster"))
		})},
		{"POST", "/versions", post(w, http.StatusOK, func(ctx context.Context,
			in platform.VersionRequest) (any, error) {
			return p.BindVersion(ctx, in)
		})},
		{"GET", "/environments", get(w, func(r *http.Request) (any, error) {
			return p.Overview(r.Context())
		})},
		{"POST", "/promotions", change(w, func(ctx context.Context,
			in platform.PromotionRequest) (any, error) {
			return shown(p.Promote(ctx, in))
		}, p.BeginPromotion)},
		{"POST", "/rollbacks", change(w, func(ctx context.Context,
			in platform.RollbackRequest) (any, error) {
			return shown(p.Rollback(ctx, in))
		}, p.BeginRollback)},
		{"POST", "/overrides", change(w, func(ctx context.Context,
			in platform.PromotionRequest) (any, error) {
			return shown(p.Override(ctx, in))
		}, p.BeginOverride)},
		{"GET", "/overrides", get(w, func(r *http.Request) (any, error) {
			return p.Overridden(r.Context())
		})},
		{"POST", "/adoptions", post(w, http.StatusOK, func(ctx context.Context,
			in platform.AdoptionRequest) (any, error) {
			return shown(p.Adopt(ctx, in))
		})},
		{"GET", "/uses", get(w, func(r *http.Request) (any, error) { return p.Uses(r.Context()) })},
		{"GET", "/changes/{change}", get(w, func(r *http.Request) (any, error) {
			return p.Change(r.Context(), r.PathValue("change"))
		})},
		{"GET", "/changes/{change}/events", get(w, func(r *http.Request) (any, error) {
			return p.ChangeEvents(r.Context(), r.PathValue("change"))
		})},
		{"DELETE", "/changes/{change}", get(w, func(r *http.Request) (any, error) {
			actor, err := actor(r)
			if err != nil {
				return nil, err
			}
			return p.AbortChange(r.Context(), r.PathValue("change"), actor, r.FormValue("reason"))
		})},
		{"POST", "/changes/{change}/pause", get(w, func(r *http.Request) (any, error) {
			actor, err := actor(r)
			if err != nil {
				return nil, err
			}
			return p.PauseChange(r.Context(), r.PathValue("change"), actor)
		})},
		{"POST", "/changes/{change}/continue", get(w, func(r *http.Request) (any, error) {
			actor, err := actor(r)
			if err != nil {
				return nil, err
			}
			return p.ContinueChange(r.Context(), r.PathValue("change"), actor)
		})},
		{"POST", "/quarantines", post(w, http.StatusOK, func(ctx context.Context,
			in platform.DigestRequest) (any, error) {
			return struct{}{}, p.Quarantine(ctx, in)
		})},
		{"POST", "/releases", post(w, http.StatusOK, func(ctx context.Context,
			in platform.DigestRequest) (any, error) {
			return struct{}{}, p.Release(ctx, in)
		})},
		{"GET", "/explanation", get(w, func(r *http.Request) (any, error) {
			q := r.FormValue
			return p.Explain(r.Context(), platform.PromotionRequest{Cluster: q("cluster"),
				Environment: q("environment"), Version: q("version"), Expect: q("expect"),
				Actor: q("actor")})
		})},
		{"POST", "/reviews", post(w, http.StatusOK, func(ctx context.Context,
			in platform.ReviewRequest) (any, error) {
			return struct{}{}, p.Review(ctx, in)
		})},
		{"GET", "/freezes", get(w, func(*http.Request) (any, error) { return p.Freezes() })},
		{"POST", "/freezes", post(w, http.StatusOK, func(_ context.Context,
			in platform.FreezeRequest) (any, error) {
			return p.Freeze(in)
		})},
		{"DELETE", "/freezes/{freeze}", get(w, func(r *http.Request) (any, error) {
			actor, err := actor(r)
			if err != nil {
				return nil, err
			}
			return p.Thaw(r.PathValue("freeze"), actor)
		})},
		{"GET", "/journal", http.HandlerFunc(w.journal)},
		{"GET", "/tasks", get(w, func(r *http.Request) (any, error) {
			return p.Tasks(r.Context())
		})},
		{"POST", "/tasks", change(w, func(ctx context.Context,
			in platform.TaskRequest) (any, error) {
			return p.StartTask(ctx, in)
		}, p.BeginTask)},
		{"GET", "/tasks/{task}", get(w, func(r *http.Request) (any, error) {
			return p.Task(r.Context(), r.PathValue("task"))
		})},
		{"GET", "/tasks/{task}/reach", get(w, func(r *http.Request) (any, error) {
			return w.reach(r)
		})},
		{"DELETE", "/tasks/{task}", get(w, func(r *http.Request) (any, error) {
			actor, err := actor(r)
			if err != nil {
				return nil, err
			}
			return p.FinishTask(r.Context(), r.PathValue("task"), actor)
		})},
		{"GET", "/vips", get(w, func(*http.Request) (any, error) { return p.Pools(), nil })},
		{"GET", "/vips/{vip}", get(w, func(r *http.Request) (any, error) {
			addr, err := netip.ParseAddr(r.PathValue("vip"))
			if err != nil {
				return nil, fmt.Errorf("%w: vip: %w", platform.ErrInvalid, err)
			}
			return p.WhoIs(r.Context(), addr)
		})},
		{"GET", "/instances", get(w, func(*http.Request) (any, error) {
			return instancesOf(p.Instances()), nil
		})},
		{"GET", "/instances/{instance}/log", http.HandlerFunc(w.instanceLog)},
		{"POST", "/instances/{instance}/restart", get(w, func(r *http.Request) (any, error) {
			actor, err := actor(r)
			if err != nil {
				return nil, err
			}
			i, err := p.RestartInstance(r.Context(), r.PathValue("instance"), actor)
			return instanceOf(i), err
		})},
		{"GET", "/nginx", get(w, func(r *http.Request) (any, error) {
			return p.NginxStatus(r.Context())
		})},
		{"GET", "/events", http.HandlerFunc(w.events)},
	}
}

// api serves the routes. Another method on a path of theirs is 405, any other path below /api/ 404.
func (w *web) api(mux *http.ServeMux) {
	methods := map[string][]string{}
	for _, route := range w.routes() {
		mux.Handle(route.method+" /api/v1"+route.path, strict(route.method+" "+route.path,
			route.handler))
		methods[route.path] = append(methods[route.path], route.method)
	}
	for path, allowed := range methods {
		mux.HandleFunc("/api/v1"+path, func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Allow", strings.Join(allowed, ", "))
			writeProblem(rw, httpproblem.MethodNotAllowed, r.Method+" is not for this path; it "+
				"takes "+strings.Join(allowed, ", "))
		})
	}
	mux.HandleFunc("/api/", func(rw http.ResponseWriter, r *http.Request) {
		writeProblem(rw, httpproblem.NotFound, "no such path: see /api/v1/openapi.json")
	})
}

// actor returns the requester: the trial knows no users, so the caller gives the name.
func actor(r *http.Request) (string, error) {
	if a := r.FormValue("actor"); a != "" {
		return a, nil
	}
	return "", fmt.Errorf("actor: want who asks, as ?actor=NAME: %w", platform.ErrInvalid)
}

// Health reports whether VIPs answer.
type Health struct {
	Ready  bool   `json:"ready"`            // as GET /readyz says
	Reason string `json:"reason,omitempty"` // why not
}

func (w *web) health(ctx context.Context) Health {
	if err := w.serves(ctx); err != nil {
		return Health{false, err.Error()}
	}
	return Health{Ready: true}
}

// list is never null in JSON.
func list[T any](values []T, err error) ([]T, error) {
	if values == nil {
		values = []T{}
	}
	return values, err
}

func get(w *web, f func(r *http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		out, err := f(r)
		if err != nil {
			w.fail(rw, r, err)
			return
		}
		writeJSON(rw, http.StatusOK, out)
	})
}

// change answers a request that starts a change: with 202 and the change when the caller prefers
// that (RFC 7240), else with the result of do when the change has ended. A caller that goes away
// undoes nothing.
func change[In any](w *web, do func(context.Context, In) (any, error),
	begin func(context.Context, In) (platform.Change, error)) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		var in In
		if err := decode(rw, r, &in); err != nil {
			w.fail(rw, r, err)
			return
		}
		if prefersAsync(r) {
			begun, err := begin(r.Context(), in)
			if err != nil {
				w.fail(rw, r, err)
				return
			}
			if begun.ID != "" {
				rw.Header().Set("Location", "/api/v1/changes/"+begun.ID)
				rw.Header().Set("Preference-Applied", "respond-async")
				writeJSON(rw, http.StatusAccepted, begun)
				return
			}
		}
		out, err := do(r.Context(), in)
		if err != nil {
			w.fail(rw, r, err)
			return
		}
		writeJSON(rw, http.StatusOK, out)
	})
}

// prefersAsync reports whether the header Prefer has respond-async (RFC 7240, section 4.1).
func prefersAsync(r *http.Request) bool {
	for _, line := range r.Header.Values("Prefer") {
		for preference := range strings.SplitSeq(line, ",") {
			name, _, _ := strings.Cut(preference, ";")
			if strings.EqualFold(strings.TrimSpace(name), "respond-async") {
				return true
			}
		}
	}
	return false
}

func post[In any](w *web, status int, f func(ctx context.Context, in In) (any,
	error)) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		var in In
		if err := decode(rw, r, &in); err != nil {
			w.fail(rw, r, err)
			return
		}
		out, err := f(r.Context(), in)
		if err != nil {
			w.fail(rw, r, err)
			return
		}
		writeJSON(rw, status, out)
	})
}

// Instance is one running container as the API shows it.
type Instance struct {
	ID          string         `json:"id"`
	Cluster     string         `json:"cluster"`
	Environment string         `json:"environment"`
	Task        string         `json:"task,omitempty"`
	Version     string         `json:"version"`
	Digest      string         `json:"digest"`
	Addr        netip.AddrPort `json:"addr"`
	PID         int            `json:"pid"`
	Restarts    int            `json:"restarts"`
}

func instanceOf(i instance.Instance) Instance {
	return Instance{
		ID: i.ID, Cluster: i.Labels["cluster"], Environment: i.Labels["environment"],
		Task:    i.Labels["task"],
		Version: i.Labels["version"], Digest: i.Labels["digest"], Addr: i.Addr, PID: i.PID,
		Restarts: i.Restarts,
	}
}

func instancesOf(list []instance.Instance) []Instance {
	out := make([]Instance, 0, len(list))
	for _, i := range list {
		out = append(out, instanceOf(i))
	}
	return slices.Clip(out)
}

// shown is a deployment as the API shows it.
func shown(d promote.Deployment, err error) (any, error) { return platform.DeploymentOf(d), err }
