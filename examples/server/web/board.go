package web

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/sluice-deploy/sluice/examples/server/platform"
)

// The numbers of rows on a page, for lists without a limit of their own.
const (
	clustersShown, tasksShown, instancesShown = 25, 25, 25
	buildsShown, entriesShown                 = 20, 30
	choicesShown                              = 100 // versions, sources and clusters in the forms
	changesShown                              = 50
)

// board is the state at one revision of the platform. All viewers share it and its rendered
// sections.
type board struct {
	revision  uint64
	loaded    time.Time
	overview  platform.Overview
	versions  []platform.Version // newest first
	hues      map[hue]int
	tasks     []platform.Task
	pools     []platform.Pool
	instances []Instance
	sources   []string
	nginx     platform.NginxStatus
	nginxErr  error

	mu       sync.Mutex
	rendered map[rendering]encoded
	last     *indexPage // of the query that was asked for last
}

type hue struct{ cluster, digest string }

// rendering is a section as a query shows it.
type rendering struct{ query, section string }

// boards keeps the newest board. The zero value is ready to use; it is safe for concurrent use.
type boards struct {
	mu  sync.Mutex // held while one is loaded: everybody else would load the same
	now *board
}

// empty reports whether no board was loaded yet.
func (b *boards) empty() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now == nil
}

// boardAge is how old a board may be when nothing has happened since: Nginx and the clock say
// nothing when they go on.
const boardAge = 10 * time.Second

// board returns a board of the revision or of a later one.
func (w *web) board(ctx context.Context, revision uint64) (*board, error) {
	w.boards.mu.Lock()
	defer w.boards.mu.Unlock()
	if b := w.boards.now; b != nil && b.revision >= revision && time.Since(b.loaded) < boardAge {
		return b, nil
	}
	b, err := w.load(ctx)
	if err == nil {
		w.boards.now = b
	}
	return b, err
}

func (w *web) load(ctx context.Context) (_ *board, err error) {
	start := time.Now()
	defer func() { w.observe("load", start, err) }()
	p := w.Platform
	b := &board{revision: p.Events.Revision(), loaded: start, pools: p.Pools(),
		instances: instancesOf(p.Instances()), rendered: map[rendering]encoded{}}
	for _, load := range []func() error{
		func() error { b.overview, err = p.Overview(ctx); return err },
		func() error { b.tasks, err = p.Tasks(ctx); return err },
		func() error { b.versions, err = p.Versions(ctx, ""); return err },
		func() error { b.sources, err = p.Sources(); return err },
	} {
		if err := load(); err != nil {
			return nil, err
		}
	}
	// without Nginx there is still a page: it shows the error
	b.nginx, b.nginxErr = p.NginxStatus(ctx)
	b.hues = hues(b.versions)
	slices.Reverse(b.versions)
	return b, nil
}

// hues numbers the digests of each cluster, oldest first.
func hues(versions []platform.Version) map[hue]int {
	all, count := map[hue]int{}, map[string]int{}
	for _, v := range versions {
		if _, found := all[hue{v.Cluster, v.Digest}]; !found {
			all[hue{v.Cluster, v.Digest}] = count[v.Cluster] % 6
		}
		count[v.Cluster]++
	}
	return all
}

// page returns the part of the board that the query shows, without builds and journal.
func (b *board) page(w *web, q query) indexPage {
	all := q.find == ""
	page := indexPage{
		Query: q, Find: q.find, Overview: platform.Overview{Environments: b.overview.Environments},
		Baseline: w.Platform.Baseline(), Pools: b.pools,
		Nginx: b.nginx, NginxErr: b.nginxErr, Templates: w.Platform.Catalog().Newest(),
		Registry: w.Platform.Registry(), hues: b.hues, Pagers: map[string]pager{},
	}
	page.Changes = len(b.nginx.Changes)
	page.Nginx.Changes = b.nginx.Changes[:min(changesShown, page.Changes)]
	found := filter(b.overview.Clusters, func(c platform.ClusterOverview) bool {
		return all || q.matches(c.Cluster) || q.matches(tasksOf(c)...)
	})
	page.Overview.Clusters, page.Pagers["environments"] = cut(q, "environments", found,
		clustersShown)
	tasks := filter(b.tasks, func(t platform.Task) bool {
		return all || q.matches(append(clustersOf(t), t.Task, t.VIP.String())...)
	})
	page.Tasks, page.Pagers["vips"] = cut(q, "vips", tasks, tasksShown)
	instances := filter(b.instances, func(i Instance) bool {
		return q.matches(i.Cluster, i.Task, i.ID)
	})
	page.Instances, page.Pagers["instances"] = cut(q, "instances", instances, instancesShown)
	page.Versions = first(filter(b.versions, func(v platform.Version) bool {
		return q.matches(v.Cluster)
	}), choicesShown, &page.MoreChoices)
	page.Sources = first(filter(b.sources, func(s string) bool {
		return q.matches(s)
	}), choicesShown, &page.MoreChoices)
	for _, c := range found[:min(choicesShown, len(found))] {
		page.Clusters = append(page.Clusters, c.Cluster)
	}
	page.Rows = matrix(page.Overview)
	page.Seen = seen(b.overview, page)
	return page
}

func filter[T any](all []T, keep func(T) bool) []T {
	var kept []T
	for _, value := range all {
		if keep(value) {
			kept = append(kept, value)
		}
	}
	return kept
}

// first returns the first n values, and sets more when there are others.
func first[T any](all []T, n int, more *bool) []T {
	if len(all) > n {
		*more = true
	}
	return all[:min(n, len(all))]
}

func tasksOf(c platform.ClusterOverview) (names []string) {
	for _, deployments := range c.Deployments {
		for _, d := range deployments {
			if d.Task != "" {
				names = append(names, d.Task)
			}
		}
	}
	return names
}

func clustersOf(t platform.Task) (names []string) {
	for _, c := range t.Clusters {
		names = append(names, c.Cluster)
	}
	return names
}

// sections are the parts of the front page that follow the server, each a template of the same
// name. The forms of "actions" hold a person's input, so that a page replaces only the choices in
// them.
var sections = []string{"environments", "vips", "actions", "builds", "instances", "journal"}

// section returns a section as the query shows it, rendered once for all viewers.
func (w *web) section(ctx context.Context, b *board, q query, name string) (encoded, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := rendering{q.encode(), name}
	if e, found := b.rendered[key]; found {
		return e, nil
	}
	if b.last == nil || b.last.Query.encode() != q.encode() {
		page := b.page(w, q)
		b.last = &page
	}
	page := *b.last
	page.Pagers = maps.Clone(page.Pagers)
	page.Template = defaultTemplate
	if err := w.fill(ctx, &page, name); err != nil {
		return encoded{}, err
	}
	e, err := w.renderSection(name, page)
	if err == nil && len(b.rendered) < 1000 { // a flood of queries must not fill the memory
		b.rendered[key] = e
	}
	return e, err
}

// fill reads the data that a section shows beside the board.
func (w *web) fill(ctx context.Context, page *indexPage, section string) (err error) {
	q := page.Query
	switch section {
	case "builds":
		var more bool
		page.Builds, more, err = w.Platform.BuildsAfter(ctx, q.builds, buildsShown, q.find,
			func(b platform.Build) bool {
				return q.matches(b.Cluster, b.ID)
			})
		if err != nil {
			return err
		}
		page.Pagers["builds"] = newest(more, q.builds != "", section, q, func(q *query, at string) {
			q.builds = at
		}, func() string {
			return page.Builds[len(page.Builds)-1].ID
		})
	case "journal":
		var last uint64
		page.Journal, last, err = w.entries(ctx, q)
		if err != nil {
			return err
		}
		older := q
		older.journal = last
		p := pager{}
		if last > 1 {
			p.Next = older.link(section)
		}
		if q.journal > 0 {
			older.journal = 0
			p.First = older.link(section)
		}
		page.Pagers["journal"] = p
	}
	return nil
}

func newest(more, inside bool, section string, q query, set func(*query, string),
	last func() string) (p pager) {
	if more {
		next := q
		set(&next, last())
		p.Next = next.link(section)
	}
	if inside {
		set(&q, "")
		p.First = q.link(section)
	}
	return p
}

// entries are the outcomes in the journal that the query shows, and where the older ones begin; 0
// when there are none.
func (w *web) entries(ctx context.Context, q query) (shown []platform.Entry, last uint64,
	err error) {
	const batch, most = 200, 20 // how far a rare name is looked for
	outcomes := outcomes{}
	last = q.journal
	for range most {
		entries, err := w.Platform.Recent(ctx, last, batch)
		if err != nil {
			return nil, 0, err
		}
		for _, e := range entries {
			last = e.At
			if outcomes.keep(e) && q.matches(e.Cluster, e.Task) {
				if shown = append(shown, e); len(shown) == entriesShown {
					return shown, last, nil
				}
			}
		}
		if len(entries) < batch {
			return shown, 0, nil
		}
	}
	return shown, last, nil
}

func (w *web) renderSection(name string, page indexPage) (_ encoded, err error) {
	start := time.Now()
	defer func() { w.observe("render", start, err) }()
	var body bytes.Buffer
	if err := templates.ExecuteTemplate(&body, name, page); err != nil {
		return encoded{}, err
	}
	return encode("text/html; charset=utf-8", body.Bytes()), nil
}

func (w *web) observe(op string, start time.Time, err error) {
	if w.Observe != nil {
		w.Observe(op, time.Since(start), err)
	}
}

const defaultTemplate = "go-static"

// pageTemplate is the template whose parameters a page shows.
func pageTemplate(sent string, values url.Values) string {
	return cmp.Or(sent, values.Get("template"), defaultTemplate)
}
