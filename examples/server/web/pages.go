package web

import (
	"bytes"
	"cmp"
	"context"
	"embed"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/examples/server/platform"
)

//go:embed static
var static embed.FS

//go:embed page/*.html
var pageFiles embed.FS

var templates = template.Must(template.New("").Funcs(template.FuncMap{
	"short": short,
	"clock": func(t time.Time) string { return t.Local().Format("15:04:05") },
	"took":  func(b platform.Build) string { return b.Ended.Sub(b.Started).Round(time.Millisecond).String() },
	"join":  strings.Join,
}).ParseFS(pageFiles, "page/*.html"))

// short is the head of a digest, enough to compare by eye.
func short(digest string) string {
	digest = strings.TrimPrefix(digest, "sha256:")
	return digest[:min(12, len(digest))]
}

func (w *web) pages(mux *http.ServeMux) {
	mux.Handle("GET /static/", http.FileServerFS(static))
	mux.HandleFunc("GET /{$}", func(rw http.ResponseWriter, r *http.Request) { w.index(rw, r, http.StatusOK, nil) })
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
		_, err := p.Promote(ctx, platform.PromotionRequest{
			Cluster: cluster, Version: version, Environment: f.value("environment"), Actor: f.actor(), Reason: f.value("reason"),
		})
		return "/#environments", err
	})
	w.form(mux, "rollbacks", func(ctx context.Context, f form) (string, error) {
		cluster, environment, _ := strings.Cut(f.value("target"), " ")
		_, err := p.Rollback(ctx, platform.RollbackRequest{
			Cluster: cluster, Environment: environment, Digest: f.value("digest"), Actor: f.actor(), Reason: f.value("reason"),
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

func (f form) actor() string { return cmp.Or(f.value("actor"), "somebody") }

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

// form answers POST /do/NAME: it goes on to where do says, or shows the page with what went wrong.
func (w *web) form(mux *http.ServeMux, name string, do func(ctx context.Context, f form) (next string, err error)) {
	mux.HandleFunc("POST /do/"+name, func(rw http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			writeProblem(rw, http.StatusBadRequest, err.Error())
			return
		}
		next, err := do(r.Context(), form{r})
		if err != nil {
			problem := problemOf(err)
			w.index(rw, r, problem.Status, &problem)
			return
		}
		http.Redirect(rw, r, next, http.StatusSeeOther)
	})
}

// indexPage is what the front page shows.
type indexPage struct {
	Problem   *Problem
	Overview  platform.Overview
	Tasks     []platform.Task
	Pools     []platform.Pool
	Builds    []platform.Build
	Instances []Instance
	Journal   []platform.Entry
	Nginx     platform.NginxStatus
	NginxErr  error
	Versions  []platform.Version
	Sources   []string
	Templates []*builder.Template
}

func (w *web) index(rw http.ResponseWriter, r *http.Request, status int, problem *Problem) {
	p, ctx := w.Platform, r.Context()
	page := indexPage{Problem: problem, Pools: p.Pools(), Instances: instancesOf(p.Instances()), Templates: p.Catalog.Templates()}
	var err error
	for _, load := range []func() error{
		func() error { page.Overview, err = p.Overview(ctx); return err },
		func() error { page.Tasks, err = p.Tasks(ctx); return err },
		func() error { page.Builds, err = p.Builds(); return err },
		func() error { page.Journal, err = p.Journal(ctx, ""); return err },
		func() error { page.Versions, err = p.Versions(ctx, ""); return err },
		func() error { page.Sources, err = p.Sources(); return err },
	} {
		if err := load(); err != nil {
			w.fail(rw, r, err)
			return
		}
	}
	page.Nginx, page.NginxErr = p.NginxStatus(ctx) // a page without Nginx is what shows that it is away
	slices.Reverse(page.Journal)
	slices.Reverse(page.Versions)
	page.Journal, page.Builds = page.Journal[:min(30, len(page.Journal))], page.Builds[:min(20, len(page.Builds))]
	rw.WriteHeader(status)
	w.render(rw, "index.html", page)
}

func (w *web) buildPage(rw http.ResponseWriter, r *http.Request) {
	build, err := w.Platform.Build(r.PathValue("build"))
	if err != nil {
		w.fail(rw, r, err)
		return
	}
	w.render(rw, "build.html", map[string]any{"Build": build, "Log": w.logLines(build)})
}

// render writes a page whole or not at all.
func (w *web) render(rw http.ResponseWriter, name string, data any) {
	var b bytes.Buffer
	if err := templates.ExecuteTemplate(&b, name, data); err != nil {
		w.Logger.Error("page", "name", name, "err", err)
		http.Error(rw, "page "+name+" cannot be shown", http.StatusInternalServerError)
		return
	}
	rw.Header().Set("Content-Type", "text/html; charset=utf-8")
	rw.Header().Set("Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'; form-action 'self'; base-uri 'none'")
	_, _ = rw.Write(b.Bytes())
}
