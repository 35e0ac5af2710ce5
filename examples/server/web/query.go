package web

import (
	"net/url"
	"strconv"
	"strings"
)

// query is a viewer's choice of the rows to show. Its zero value is the front page's beginning.
type query struct {
	// in the names of clusters and tasks; empty finds all
	find string
	// by section, counted from 0
	pages map[string]int
	// the build that those shown come after, newest first; empty begins with the newest
	builds string
	// the entry that those shown come after, newest first; 0 begins with the newest
	journal uint64
}

// paged are the sections that have numbered pages.
var paged = []string{"environments", "vips", "instances"}

// parseQuery takes a bad number as the beginning.
func parseQuery(values url.Values) query {
	q := query{find: strings.ToLower(strings.TrimSpace(values.Get("find"))),
		pages: map[string]int{}, builds: values.Get("builds")}
	q.find = q.find[:min(len(q.find), 128)]
	for _, section := range paged {
		if n, err := strconv.Atoi(values.Get(section)); err == nil && n > 1 {
			q.pages[section] = n - 1
		}
	}
	q.journal, _ = strconv.ParseUint(values.Get("journal"), 10, 64)
	return q
}

// encode returns the query as it stands in a URL; two that show the same have the same text.
func (q query) encode() string {
	values := url.Values{}
	set := func(name, value string) {
		if value != "" {
			values.Set(name, value)
		}
	}
	set("find", q.find)
	set("builds", q.builds)
	for section, n := range q.pages {
		set(section, strconv.Itoa(n+1))
	}
	if q.journal > 0 {
		set("journal", strconv.FormatUint(q.journal, 10))
	}
	return values.Encode()
}

// matches reports whether one of the names contains the text to find.
func (q query) matches(names ...string) bool {
	if q.find == "" {
		return true
	}
	for _, name := range names {
		if strings.Contains(strings.ToLower(name), q.find) {
			return true
		}
	}
	return false
}

// pager leads to the parts of a section beside the one that is shown. Empty links lead nowhere.
type pager struct {
	Text                string
	First, Before, Next string
}

func (q query) link(section string) string { return "/?" + q.encode() + "#" + section }

// at returns the query with another page of a section.
func (q query) at(section string, n int) query {
	pages := map[string]int{}
	for name, page := range q.pages {
		pages[name] = page
	}
	if pages[section] = n; n <= 0 {
		delete(pages, section)
	}
	q.pages = pages
	return q
}

// cut returns the part of all that the query shows in the section, size values long, and the links
// to the others.
func cut[T any](q query, section string, all []T, size int) ([]T, pager) {
	page := min(q.pages[section], max(0, len(all)-1)/size)
	from := page * size
	to := min(from+size, len(all))
	if len(all) <= size {
		return all, pager{}
	}
	p := pager{Text: strconv.Itoa(from+1) + "–" + strconv.Itoa(to) + " of " +
		strconv.Itoa(len(all))}
	if page > 0 {
		p.First, p.Before = q.at(section, 0).link(section), q.at(section, page-1).link(section)
	}
	if to < len(all) {
		p.Next = q.at(section, page+1).link(section)
	}
	return all[from:to], p
}
