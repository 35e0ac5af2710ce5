package web

import (
	"cmp"
	"html/template"
	"net/http"
	"net/url"
	"strings"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/examples/server/platform"
	"github.com/sluice-deploy/sluice/promote"
)

// indexPage holds the values of the front page, or of a section of it.
type indexPage struct {
	Problem     *Problem
	Actor       string // the person at this browser
	Template    string // whose parameters the form for builds shows
	SignOut     bool   // there is a session to end
	Find        string // the text to find in the names
	Query       query
	Pagers      map[string]pager   // by section
	Sections    map[string]section // the rendered ones
	Overview    platform.Overview
	Baseline    string
	Rows        []matrixRow
	Seen        []seenCluster // the current digests, for compare-and-set
	Tasks       []platform.Task
	Pools       []platform.Pool
	Builds      []platform.Build
	Instances   []Instance
	Journal     []platform.Entry // newest first
	Nginx       platform.NginxStatus
	NginxErr    error
	Changes     int                // of the Nginx configuration; Nginx has the first of them
	Versions    []platform.Version // newest first
	Sources     []string
	Registry    string   // host:port
	Clusters    []string // to choose from
	MoreChoices bool     // there are versions or sources beside those to choose from
	Templates   []*builder.Template

	hues   map[hue]int
	sentTo string // the form that was refused
	sent   url.Values
}

// section is a part of the page, and the tag that shows whether it is the newest.
type section struct {
	HTML template.HTML
	Tag  string
}

// seenCluster holds the digests that a page shows as current for one cluster: "test=sha256:…
// stable=sha256:…".
type seenCluster struct{ Cluster, Current string }

// seen returns the current digests for the clusters of the rows and of the versions to choose.
func seen(all platform.Overview, page indexPage) (list []seenCluster) {
	shown := map[string]bool{}
	for _, row := range page.Rows {
		shown[row.Cluster] = true
	}
	for _, v := range page.Versions {
		shown[v.Cluster] = true
	}
	for _, c := range all.Clusters {
		if !shown[c.Cluster] {
			continue
		}
		var current []string
		for _, environment := range all.Environments {
			for _, d := range c.Deployments[environment] {
				if d.Task == "" {
					current = append(current, environment+"="+d.Digest)
				}
			}
		}
		list = append(list, seenCluster{c.Cluster, strings.Join(current, " ")})
	}
	return list
}

// expected is the digest that a seenCluster names for the environment, "none" when it names none.
func expected(current, environment string) string {
	for _, field := range strings.Fields(current) {
		if digest, found := strings.CutPrefix(field, environment+"="); found {
			return digest
		}
	}
	return string(promote.None)
}

// matrixRow holds the deployments of one cluster, one cell for each environment.
type matrixRow struct {
	Cluster string
	Cells   []matrixCell
}

type matrixCell struct {
	Environment        string
	Deployments, Tasks []platform.Deployment
	// beside Tasks
	MoreTasks int
	// the environment that does not have this digest yet and comes next; empty if there is none
	Next string
	// the digest that is there, for compare-and-set; "none" for nothing
	NextHas string
}

// Has is the digest that is here, for compare-and-set; "none" for nothing.
func (c matrixCell) Has() string {
	if len(c.Deployments) == 0 {
		return string(promote.None)
	}
	return c.Deployments[0].Digest
}

func (w *web) index(rw http.ResponseWriter, r *http.Request, problem *Problem, sentTo string) {
	page, err := w.indexPage(r, problem, sentTo)
	if err != nil {
		w.showProblem(rw, r, err)
		return
	}
	status := http.StatusOK
	if problem != nil {
		status = problem.Status
	}
	w.render(rw, r, status, "index.html", page)
}

// indexPage takes the sections that all viewers share, and renders the forms for this one.
func (w *web) indexPage(r *http.Request, problem *Problem, sentTo string) (page indexPage,
	err error) {
	b, err := w.board(r.Context(), w.Platform.Events.Revision())
	if err != nil {
		return page, err
	}
	page = b.page(w, parseQuery(r.URL.Query()))
	page.SignOut = w.Token != ""
	page.Problem, page.sentTo, page.sent = problem, sentTo, r.PostForm
	page.Actor = cmp.Or(r.PostForm.Get("actor"), actorOf(r))
	page.Template = pageTemplate(page.Sent("builds", "template"), r.URL.Query())
	page.Sections = map[string]section{}
	for _, name := range sections {
		shared, err := w.section(r.Context(), b, page.Query, name)
		if err == nil && name == "actions" {
			tag := shared.tag
			shared, err = w.renderSection(name, page)
			shared.tag = tag
		}
		if err != nil {
			return page, err
		}
		page.Sections[name] = section{template.HTML(shared.body), shared.tag}
	}
	return page, nil
}

// cellTasks is how many tasks a cell of the matrix names.
const cellTasks = 8

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
			if cell.MoreTasks = len(cell.Tasks) - cellTasks; cell.MoreTasks > 0 {
				cell.Tasks = cell.Tasks[:cellTasks]
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

// outcomes leaves the beginnings of changes out whose end is known. It is asked about the entries
// from the newest on.
type outcomes map[promote.Target]bool // where the newest end is known

func (ended outcomes) keep(e platform.Entry) bool {
	at := promote.Target{Cluster: e.Cluster, Environment: e.Environment, Task: e.Task}
	switch promote.Kind(e.Kind) {
	case promote.Succeeded, promote.Failed:
		ended[at] = true
	case promote.Started, promote.Resumed, promote.Restoring:
		return !ended[at]
	}
	return true
}

// Sent returns the value of the field in the form that was refused.
func (p indexPage) Sent(form, field string) string {
	if form != p.sentTo {
		return ""
	}
	return p.sent.Get(field)
}

// Hue makes the digests of a cluster differ at a glance; the digests beside it are the exact
// values.
func (p indexPage) Hue(cluster, digest string) int { return p.hues[hue{cluster, digest}] }

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

// paramField is one parameter of a template and the value that was sent for it.
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

// Section is a part of the page as it is rendered, or rendered now where it is not.
func (p indexPage) Section(name string) (section, error) {
	if s, found := p.Sections[name]; found {
		return s, nil
	}
	var b strings.Builder
	err := templates.ExecuteTemplate(&b, name, p)
	return section{HTML: template.HTML(b.String())}, err
}
