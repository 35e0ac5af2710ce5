package web

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"

	"github.com/sluice-deploy/sluice/examples/server/platform"
)

//go:embed page/*.html
var pageFiles embed.FS

var templates = template.Must(template.New("").Funcs(template.FuncMap{
	"short": short,
	"clock": clock,
	"clip":  clip,
	"bytes": humanBytes,
	"took":  took,
}).ParseFS(pageFiles, "page/*.html"))

// short is the head of a digest, enough to compare by eye.
func short(digest string) string {
	digest = strings.TrimPrefix(digest, "sha256:")
	return digest[:min(12, len(digest))]
}

// took is how long a build ran; empty for one that was cancelled before it did.
func took(b platform.Build) string {
	if b.Started.IsZero() || b.Ended.IsZero() {
		return ""
	}
	return b.Ended.Sub(b.Started).Round(time.Millisecond).String()
}

// clip is the head of a text that may be long: its page or the API has the rest.
func clip(text string) string {
	const most = 1000
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + " …"
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
		w.showProblem(rw, r, fmt.Errorf("%s: %w: no page has this address", r.URL.Path,
			platform.ErrNotFound))
	})
	mux.HandleFunc("GET /{$}", func(rw http.ResponseWriter, r *http.Request) {
		w.index(rw, r, nil, "")
	})
	mux.HandleFunc("GET /live", w.live)
	mux.HandleFunc("GET /sections/{section}", w.sectionPage)
	mux.HandleFunc("GET /builds/{build}", w.buildPage)
	mux.HandleFunc("GET /tasks/{task}", w.taskPage)
	mux.HandleFunc("GET /pac/{task}/{file}", w.pac)
	mux.HandleFunc("GET /login", w.login)
	mux.HandleFunc("POST /login", w.login)
	mux.HandleFunc("POST /logout", w.logout)
	mux.HandleFunc("GET /livez", w.livez)
	mux.HandleFunc("GET /readyz", w.readyz)
	w.forms(mux)
}

func (w *web) buildPage(rw http.ResponseWriter, r *http.Request) {
	build, err := w.Platform.Build(r.Context(), r.PathValue("build"))
	var log []string
	if err == nil {
		log, err = w.logLines(r.Context(), build)
	}
	if err != nil {
		w.showProblem(rw, r, err)
		return
	}
	w.render(rw, r, http.StatusOK, "build.html", map[string]any{"Build": build, "Log": log})
}

// showProblem answers a person with a page of the error alone.
func (w *web) showProblem(rw http.ResponseWriter, r *http.Request, err error) {
	problem := problemOf(err)
	if forOperator(problem) {
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
	rw.Header().Set("Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'; "+
		"form-action 'self'; base-uri 'none'")
	encode("text/html; charset=utf-8", b.Bytes()).write(rw, r, status)
}
