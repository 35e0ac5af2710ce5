package web

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"slices"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/examples/server/platform"
	"github.com/sluice-deploy/sluice/promote"
)

// indexPage is what the front page shows.
type indexPage struct {
	Problem   *Problem
	Actor     string // who uses this browser
	Template  string // whose parameters the form for builds shows
	Overview  platform.Overview
	Baseline  string
	Rows      []matrixRow
	Tasks     []platform.Task
	Pools     []platform.Pool
	Builds    []platform.Build
	Instances []Instance
	Journal   []platform.Entry
	Nginx     platform.NginxStatus
	NginxErr  error
	Versions  []platform.Version // newest first
	Sources   []string
	Templates []*builder.Template

	sentTo string // the form that was refused
	sent   url.Values
}

// matrixRow is what one cluster is deployed as, one cell for each environment.
type matrixRow struct {
	Cluster string
	Cells   []matrixCell
}

type matrixCell struct {
	Environment        string
	Deployments, Tasks []platform.Deployment
	Next               string // the environment that does not have this digest yet and comes next; empty if there is none
	NextHas            string // the digest that is there, for compare-and-set; "none" for nothing
}

// Has is the digest that is here, for compare-and-set; "none" for nothing.
func (c matrixCell) Has() string {
	if len(c.Deployments) == 0 {
		return string(promote.None)
	}
	return c.Deployments[0].Digest
}

func (w *web) index(rw http.ResponseWriter, r *http.Request, problem *Problem, sentTo string) {
	page, err := w.indexPage(r.Context())
	if err != nil {
		w.showProblem(rw, r, err)
		return
	}
	status := http.StatusOK
	if problem != nil {
		status = problem.Status
	}
	page.Problem, page.sentTo, page.sent = problem, sentTo, r.PostForm
	page.Actor = cmp.Or(r.PostForm.Get("actor"), actorOf(r))
	page.Template = cmp.Or(page.Sent("builds", "template"), r.URL.Query().Get("template"), "go-static")
	w.render(rw, r, status, "index.html", page)
}

func (w *web) indexPage(ctx context.Context) (page indexPage, err error) {
	p := w.Platform
	page = indexPage{Pools: p.Pools(), Instances: instancesOf(p.Instances()), Templates: p.Catalog.Templates()}
	for _, load := range []func() error{
		func() error { page.Overview, err = p.Overview(ctx); return err },
		func() error { page.Tasks, err = p.Tasks(ctx); return err },
		func() error { page.Builds, err = p.Builds(); return err },
		func() error { page.Journal, err = p.Journal(ctx, ""); return err },
		func() error { page.Versions, err = p.Versions(ctx, ""); return err },
		func() error { page.Sources, err = p.Sources(); return err },
	} {
		if err := load(); err != nil {
			return page, err
		}
	}
	page.Nginx, page.NginxErr = p.NginxStatus(ctx) // a page without Nginx is what shows that it is away
	page.Rows = matrix(page.Overview)
	page.Baseline = page.Overview.Environments[len(page.Overview.Environments)-1]
	page.Journal = outcomes(page.Journal)
	slices.Reverse(page.Versions)
	page.Journal, page.Builds = page.Journal[:min(30, len(page.Journal))], page.Builds[:min(20, len(page.Builds))]
	return page, nil
}

func matrix(overview platform.Overview) []matrixRow {
	rows := make([]matrixRow, 0, len(overview.Clusters))
	for _, cluster := range overview.Clusters {
		row := matrixRow{Cluster: cluster.Cluster}
		for _, environment := range overview.Environments {
			cell := matrixCell{Environment: environment}
			for _, d := range cluster.Deployments[environment] {
				if d.Task == "" {
					cell.Deployments = append(cell.Deployments, d)
				} else {
					cell.Tasks = append(cell.Tasks, d)
				}
			}
			row.Cells = append(row.Cells, cell)
		}
		for n := range row.Cells[1:] {
			here, next := &row.Cells[n], row.Cells[n+1]
			if len(here.Deployments) > 0 && next.Has() != here.Has() {
				here.Next, here.NextHas = next.Environment, next.Has()
			}
		}
		rows = append(rows, row)
	}
	return rows
}

// outcomes is the journal from its newest entry on, without the beginnings of changes whose end is known.
func outcomes(journal []platform.Entry) []platform.Entry {
	type target struct{ cluster, environment, task string }
	var kept []platform.Entry
	ended := map[target]bool{}
	for _, e := range slices.Backward(journal) {
		at := target{e.Cluster, e.Environment, e.Task}
		switch promote.Kind(e.Kind) {
		case promote.Succeeded, promote.Failed:
			ended[at] = true
		case promote.Started, promote.Resumed, promote.Restoring:
			if ended[at] {
				continue
			}
		}
		kept = append(kept, e)
	}
	return kept
}

// Sent is what was in the field of the form that was refused.
func (p indexPage) Sent(form, field string) string {
	if form != p.sentTo {
		return ""
	}
	return p.sent.Get(field)
}

// Hue tells the digests of a cluster apart at a glance; the digests beside it tell them apart for sure.
func (p indexPage) Hue(cluster, digest string) int {
	n := 0
	for _, v := range slices.Backward(p.Versions) {
		if v.Cluster != cluster {
			continue
		}
		if v.Digest == digest {
			return n % 6
		}
		n++
	}
	return n % 6
}

// imageOption is one version to choose.
type imageOption struct {
	Image    string
	Selected bool
}

// Images are the versions that a form offers.
func (p indexPage) Images(form string) []imageOption {
	options := make([]imageOption, 0, len(p.Versions))
	for _, v := range p.Versions {
		image := v.Cluster + " " + v.Version
		options = append(options, imageOption{image, image == p.Sent(form, "image")})
	}
	return options
}

// paramField is one parameter of a template and what was sent for it.
type paramField struct {
	builder.Param
	Sent string
}

// Param is a field of the form for builds.
func (p indexPage) Param(template string, param builder.Param) paramField {
	field := paramField{Param: param}
	if p.Sent("builds", "template") == template {
		field.Sent = p.Sent("builds", "param."+param.Name)
	}
	return field
}
