package web

import (
	"bytes"
	"cmp"
	"context"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sluice-deploy/sluice/examples/server/platform"
	"github.com/sluice-deploy/sluice/internal/httpproblem"
)

//go:embed page/*.html
var pageFiles embed.FS

var templates = template.Must(template.New("").Funcs(template.FuncMap{
	"short": short,
	"clock": clock,
	"bytes": humanBytes,
	"took":  func(b platform.Build) string { return b.Ended.Sub(b.Started).Round(time.Millisecond).String() },
}).ParseFS(pageFiles, "page/*.html"))

// short is the head of a digest, enough to compare by eye.
func short(digest string) string {
	digest = strings.TrimPrefix(digest, "sha256:")
	return digest[:min(12, len(digest))]
}

// clock is the time of day, and the day when that is not today.
func clock(t time.Time) string {
	t = t.Local()
	if t.Format(time.DateOnly) != time.Now().Format(time.DateOnly) {
		return t.Format("2 Jan 15:04:05")
	}
	return t.Format(time.TimeOnly)
}

func humanBytes(n int64) string {
	switch {
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%d B", n)
}

func (w *web) pages(mux *http.ServeMux) {
	w.assets(mux)
	mux.HandleFunc("/", func(rw http.ResponseWriter, r *http.Request) {
		w.showProblem(rw, r, fmt.Errorf("%s: %w: no page has this address", r.URL.Path, platform.ErrNotFound))
	})
	mux.HandleFunc("GET /{$}", func(rw http.ResponseWriter, r *http.Request) { w.index(rw, r, nil, "") })
	mux.HandleFunc("GET /builds/{build}", w.buildPage)
	mux.HandleFunc("GET /login", w.login)
	mux.HandleFunc("POST /login", w.login)
	p := w.Platform
	w.form(mux, "builds", func(_ context.Context, f form) (string, error) {
		params := map[string]string{}
		for name, value := range f.prefixed("param.") {
			params[name] = value
		}
		build, err := p.SubmitBuild(platform.BuildRequest{
			Cluster: f.value("cluster"), Version: f.value("version"), Template: f.value("template"), Source: f.value("source"),
			Params: params, Actor: f.actor(),
		})
		return "/builds/" + build.ID, err
	})
	w.form(mux, "tasks", func(ctx context.Context, f form) (string, error) {
		cluster, version, _ := strings.Cut(f.value("image"), " ")
		_, err := p.StartTask(ctx, platform.TaskRequest{Task: f.value("task"), Cluster: cluster, Version: version, Actor: f.actor()})
		return "/#vips", err
	})
	w.form(mux, "finish", func(ctx context.Context, f form) (string, error) {
		_, err := p.FinishTask(ctx, f.value("task"), f.actor())
		return "/#vips", err
	})
	w.form(mux, "promotions", func(ctx context.Context, f form) (string, error) {
		cluster, version, _ := strings.Cut(f.value("image"), " ")
		environment := f.value("environment")
		expect := cmp.Or(f.value("expect"), f.value("seen."+cluster+"."+environment)) // what the page showed as current
		_, err := p.Promote(ctx, platform.PromotionRequest{
			Cluster: cluster, Version: version, Environment: environment, Expect: expect,
			Actor: f.actor(), Reason: f.value("reason"),
		})
		return "/#environments", err
	})
	w.form(mux, "rollbacks", func(ctx context.Context, f form) (string, error) {
		cluster, rest, _ := strings.Cut(f.value("target"), " ")
		environment, current, _ := strings.Cut(rest, " ") // what the page showed as current
		_, err := p.Rollback(ctx, platform.RollbackRequest{
			Cluster: cluster, Environment: environment, Digest: f.value("digest"), Expect: current, Actor: f.actor(), Reason: f.value("reason"),
		})
		return "/#environments", err
	})
	w.form(mux, "restarts", func(ctx context.Context, f form) (string, error) {
		_, err := p.RestartInstance(ctx, f.value("instance"))
		return "/#instances", err
	})
}

// form is what a browser has sent.
type form struct{ r *http.Request }

func (f form) value(name string) string { return strings.TrimSpace(f.r.PostFormValue(name)) }

func (f form) actor() string { return cmp.Or(f.value("actor"), actorOf(f.r), "somebody") }

// prefixed are the fields whose names start with prefix, without it; empty ones are left out.
func (f form) prefixed(prefix string) map[string]string {
	fields := map[string]string{}
	for name := range f.r.PostForm {
		if rest, found := strings.CutPrefix(name, prefix); found && f.value(name) != "" {
			fields[rest] = f.value(name)
		}
	}
	return fields
}

const actorCookie = "sluice_actor"

// actorOf is the name that this browser has given before.
func actorOf(r *http.Request) string {
	cookie, err := r.Cookie(actorCookie)
	if err != nil {
		return ""
	}
	name, err := url.QueryUnescape(cookie.Value)
	if err != nil {
		return ""
	}
	return name
}

// form answers POST /do/NAME: it goes on to where do says, or shows the page with what went wrong and what was sent.
func (w *web) form(mux *http.ServeMux, name string, do func(ctx context.Context, f form) (next string, err error)) {
	mux.HandleFunc("POST /do/"+name, func(rw http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(rw, r.Body, 1<<20)
		if err := r.ParseForm(); err != nil {
			w.showProblem(rw, r, fmt.Errorf("%w: form: %w", platform.ErrInvalid, err))
			return
		}
		f := form{r}
		if given := f.value("actor"); given != "" {
			http.SetCookie(rw, &http.Cookie{
				Name: actorCookie, Value: url.QueryEscape(given), Path: "/", MaxAge: 365 * 24 * 3600, HttpOnly: true, SameSite: http.SameSiteStrictMode,
			})
		}
		next, err := do(r.Context(), f)
		if err != nil {
			problem := problemOf(err)
			w.index(rw, r, &problem, name)
			return
		}
		http.Redirect(rw, r, next, http.StatusSeeOther)
	})
}

func (w *web) buildPage(rw http.ResponseWriter, r *http.Request) {
	build, err := w.Platform.Build(r.PathValue("build"))
	if err != nil {
		w.showProblem(rw, r, err)
		return
	}
	w.render(rw, r, http.StatusOK, "build.html", map[string]any{"Build": build, "Log": w.logLines(build)})
}

// showProblem answers a person with a page of the error alone.
func (w *web) showProblem(rw http.ResponseWriter, r *http.Request, err error) {
	problem := problemOf(err)
	if problem.Code == httpproblem.Internal {
		w.Logger.Error("page", "err", err)
	}
	w.render(rw, r, problem.Status, "problem.html", problem)
}

// render writes a page whole or not at all.
func (w *web) render(rw http.ResponseWriter, r *http.Request, status int, name string, data any) {
	var b bytes.Buffer
	if err := templates.ExecuteTemplate(&b, name, data); err != nil {
		w.Logger.Error("page", "name", name, "err", err)
		http.Error(rw, "page "+name+" cannot be shown", http.StatusInternalServerError)
		return
	}
	rw.Header().Set("Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'; form-action 'self'; base-uri 'none'")
	encode("text/html; charset=utf-8", b.Bytes()).write(rw, r, status)
}
