package web

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/sluice-deploy/sluice/examples/server/platform"
	"github.com/sluice-deploy/sluice/promote"
)

// act is the action of a form. It is carried out under a name only.
type act struct {
	name string // of the form: it is sent to /do/NAME
	// about describes in words the change that do would make. Where it asks for a confirmation, do
	// is not called before a person has seen those words.
	about func(ctx context.Context, f form) (confirmation, error)
	// do returns where to go on.
	do func(ctx context.Context, f form) (next string, err error)
}

func (w *web) forms(mux *http.ServeMux) {
	for _, a := range w.acts() {
		mux.HandleFunc("POST /do/"+a.name, func(rw http.ResponseWriter, r *http.Request) {
			w.act(rw, r, a)
		})
	}
}

func (w *web) acts() []act {
	p := w.Platform
	return []act{
		{"builds", titled(func(f form) string {
			return "Build " + f.value("cluster") + " " + f.value("version")
		}),
			func(ctx context.Context, f form) (string, error) {
				build, err := p.SubmitBuild(ctx, platform.BuildRequest{
					Cluster: f.value("cluster"), Version: f.value("version"),
					Template: f.value("template"), Source: f.value("source"),
					Params: f.prefixed("param."), Actor: f.actor(),
				})
				return "/builds/" + build.ID, err
			}},
		{"cancellations", titled(func(f form) string {
			return "Cancel the build " + f.value("build")
		}),
			func(ctx context.Context, f form) (string, error) {
				build, err := p.CancelBuild(ctx, f.value("build"), f.actor(),
					f.value("reason"))
				return "/builds/" + build.ID, err
			}},
		{"versions", titled(func(f form) string {
			return "Bind " + f.value("cluster") + " " + f.value("version")
		}),
			func(ctx context.Context, f form) (string, error) {
				_, err := p.BindVersion(ctx, platform.VersionRequest{
					Cluster: f.value("cluster"), Version: f.value("version"),
					Digest: f.value("digest"), Actor: f.actor(),
				})
				return "/#actions", err
			}},
		{"tasks", titled(func(f form) string {
			return "Start the task " + f.value("task") + " with " + f.value("image")
		}),
			func(ctx context.Context, f form) (string, error) {
				cluster, version := f.image()
				_, err := p.StartTask(ctx, platform.TaskRequest{Task: f.value("task"),
					Cluster: cluster, Version: version, Actor: f.actor()})
				return "/#vips", err
			}},
		{"finish", titled(func(f form) string { return "Finish the task " + f.value("task") }),
			func(ctx context.Context, f form) (string, error) {
				_, err := p.FinishTask(ctx, f.value("task"), f.actor())
				return "/#vips", err
			}},
		{"promotions", w.aboutPromotion, func(ctx context.Context, f form) (string, error) {
			_, err := p.Promote(ctx, f.promotion())
			return "/#environments", err
		}},
		{"rollbacks", w.aboutRollback, func(ctx context.Context, f form) (string, error) {
			_, err := p.Rollback(ctx, f.rollback())
			return "/#environments", err
		}},
		{"restarts", titled(func(f form) string { return "Restart " + f.value("instance") }),
			func(ctx context.Context, f form) (string, error) {
				_, err := p.RestartInstance(ctx, f.value("instance"), f.actor())
				return "/#instances", err
			}},
	}
}

// act carries out the action of a form and redirects to the page that do returns, or shows the
// front page with the problem and the fields that were sent. It asks first where a confirmation or
// a name is missing.
func (w *web) act(rw http.ResponseWriter, r *http.Request, a act) {
	r.Body = http.MaxBytesReader(rw, r.Body, 1<<20)
	if err := r.ParseForm(); err != nil {
		w.showProblem(rw, r, fmt.Errorf("%w: form: %w", platform.ErrInvalid, err))
		return
	}
	f := form{r}
	if given := f.value("actor"); given != "" {
		w.setCookie(rw, r, &http.Cookie{Name: actorCookie, Value: url.QueryEscape(given),
			MaxAge: 365 * 24 * 3600})
	}
	var next string
	about, err := a.about(r.Context(), f)
	if err == nil && (f.actor() == "" || about.Required && f.value("confirmed") == "") {
		w.render(rw, r, http.StatusOK, "confirm.html", about.of(a.name, f))
		return
	}
	if err == nil {
		next, err = a.do(r.Context(), f)
	}
	if err != nil {
		problem := problemOf(err)
		w.index(rw, r, &problem, a.name)
		return
	}
	http.Redirect(rw, r, next, http.StatusSeeOther)
}

// form holds the fields that a browser has sent.
type form struct{ r *http.Request }

func (f form) value(name string) string { return strings.TrimSpace(f.r.PostFormValue(name)) }

// actor is the name that was sent, else the one that this browser has given before; empty without
// any.
func (f form) actor() string { return cmp.Or(f.value("actor"), actorOf(f.r)) }

// image is the version that was chosen.
func (f form) image() (cluster, version string) {
	cluster, version, _ = strings.Cut(f.value("image"), " ")
	return cluster, version
}

func (f form) promotion() platform.PromotionRequest {
	cluster, version := f.image()
	environment, expect := f.value("environment"), f.value("expect")
	// the digest that the page showed as current
	if current, found := f.r.PostForm["seen."+cluster]; found && expect == "" {
		expect = expected(current[0], environment)
	}
	return platform.PromotionRequest{
		Cluster: cluster, Version: version, Environment: environment,
		Expect: expect, Actor: f.actor(), Reason: f.value("reason"),
	}
}

func (f form) rollback() platform.RollbackRequest {
	cluster, rest, _ := strings.Cut(f.value("target"), " ")
	environment, current, _ := strings.Cut(rest, " ") // what the page showed as current
	return platform.RollbackRequest{
		Cluster: cluster, Environment: environment, Digest: f.value("digest"),
		Expect: cmp.Or(current, string(promote.None)), Actor: f.actor(), Reason: f.value("reason"),
	}
}

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
