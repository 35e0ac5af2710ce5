package route

import (
	"errors"
	"io/fs"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/internal/pcre"
)

// anyIPv6 stands for the IPv6 addresses that no listen names. It is one of the range for documents
// (RFC 3849).
var anyIPv6 = netip.MustParseAddr("2001:db8:5::1")

// locationPair is one location of one or both of two servers. The zero pair is that of the servers
// themselves.
type locationPair struct {
	key     string
	nodes   [2]conf.Node
	parents string // prefix of the location around one with an expression
	moved   bool   // an expression that is looked at in another order
}

// locationPairs are the locations of both servers, those of the new one first, behind the pair of
// the servers themselves.
func locationPairs(old, new conf.Node) []*locationPair {
	list := []*locationPair{{}}
	by := map[string]*locationPair{}
	var exprs [2][]string
	for _, side := range []int{1, 0} {
		var walk func(in conf.Node, prefix, key string)
		walk = func(in conf.Node, prefix, key string) {
			for n := range in.Find("location") {
				modifier, text := pattern(n)
				k := key + strings.TrimSpace(modifier+" "+text)
				if by[k] == nil {
					by[k] = &locationPair{key: k, parents: prefix}
					list = append(list, by[k])
				}
				if by[k].nodes[side].Directive == nil { // Nginx refuses a second one
					by[k].nodes[side] = n
				}
				inside := text
				if strings.HasPrefix(modifier, "~") {
					exprs[side] = append(exprs[side], k)
					inside = prefix
				}
				walk(n, inside, k+" > ")
			}
		}
		walk([]conf.Node{old, new}[side], "", "")
	}
	both := func(k string) bool {
		return by[k].nodes[0].Directive != nil && by[k].nodes[1].Directive != nil
	}
	for side := range exprs {
		exprs[side] = slices.DeleteFunc(exprs[side], func(k string) bool { return !both(k) })
	}
	for i, k := range exprs[0] {
		by[k].moved = exprs[1][i] != k
	}
	return list
}

// pairComparer compares the locations of two servers.
type pairComparer struct {
	*comparer
	*group
	server      [2][]effect
	serverDiffs [2][]effect
}

func newPairComparer(c *comparer, g *group) *pairComparer {
	p := &pairComparer{comparer: c, group: g}
	for i, r := range c.sides {
		p.server[i] = r.serverEffects(g.servers[i])
	}
	p.serverDiffs[0], p.serverDiffs[1] = differing(p.server[0], p.server[1])
	return p
}

// maxProbes bounds the requests of one pair; maxShown the changes.
const maxProbes, maxShown = 64, 16

// compare lists the changes of one pair.
func (p *pairComparer) compare(pair *locationPair) []PairChange {
	var effects, diffs [2][]effect
	for i, r := range p.sides {
		switch {
		case pair.key == "":
			effects[i] = slices.Clone(p.server[i])
			if !hasRoot(p.servers[i]) { // else no path is left to the server itself
				effects[i] = append(effects[i], r.locationEffects(p.servers[i], p.servers[i])...)
			}
		case pair.nodes[i].Directive != nil:
			effects[i] = r.locationEffects(pair.nodes[i], p.servers[i])
		}
	}
	oneSided := pair.key != "" && (pair.nodes[0].Directive == nil || pair.nodes[1].Directive == nil)
	if !oneSided {
		diffs[0], diffs[1] = differing(effects[0], effects[1])
	}
	differ := diffs[0] != nil || diffs[1] != nil
	around := p.serverDiffs[0] != nil || p.serverDiffs[1] != nil
	leads := slices.ContainsFunc(append(slices.Clone(effects[0]), effects[1]...), redirects)
	if !differ && !oneSided && !pair.moved && !around && !leads {
		return nil
	}
	if strings.HasPrefix(pair.key, "@") && oneSided {
		return nil // whoever leads to it has it among its effects
	}
	var changes []PairChange
	var members [][]member
	met := false // a request came to the location, and could be followed on both sides
	reason := "no request that comes here could be made up"
	for _, q := range p.probes(pair, effects, diffs) {
		sides, reached, why := p.follow(pair, q)
		if !reached {
			continue
		}
		if why != "" {
			reason = why
			continue
		}
		met = true
		what := differences(&sides[0], &sides[1])
		if len(what) == 0 {
			continue
		}
		change := PairChange{Kind: Changed, Location: pair.name(), Request: q.String(), What: what,
			Old: sides[0].Side, New: sides[1].Side}
		change.place(diffs)
		who := p.who(q, effects)
		if i := slices.IndexFunc(changes, change.like); i >= 0 {
			members[i] = append(members[i], who...)
		} else if len(changes) < maxShown {
			changes, members = append(changes, change), append(members, who)
		}
	}
	for i := range changes {
		changes[i].name(members[i])
	}
	if len(changes) > 0 || !differ && !pair.moved && !(oneSided && !met) {
		return changes
	}
	if met {
		reason = "directives differ, and no request that was tried goes elsewhere"
	}
	change := PairChange{Kind: Undecided, Location: pair.name(), Reason: reason}
	if oneSided {
		diffs = effects
	}
	change.place(diffs)
	for i, side := range []*Side{&change.Old, &change.New} {
		if n := pair.nodes[i]; side.At == "" && n.Directive != nil {
			side.At = at(n.Directive)
		}
	}
	change.name(p.members)
	return []PairChange{change}
}

func (p *locationPair) name() string {
	if p.key == "" {
		return "server"
	}
	return p.key
}

// place sets the places of a change in which no directive of the answer differs, or that is
// undecided.
func (c *PairChange) place(diffs [2][]effect) {
	if c.Kind == Changed && slices.ContainsFunc(c.What, func(what string) bool {
		return !strings.Contains(what, "headers")
	}) {
		return
	}
	for i, side := range []*Side{&c.Old, &c.New} {
		if len(diffs[i]) > 0 {
			side.At = at(diffs[i][0].at.Directive)
		}
	}
}

// redirects reports whether a directive may lead to another location.
func redirects(e effect) bool {
	switch e.at.Name() {
	case "rewrite", "try_files", "error_page", "index", "if", "return":
		return true
	}
	return false
}

// who returns the members that a request stands for: all, unless the host or the socket is looked
// at.
func (p *pairComparer) who(q probe, effects [2][]effect) []member {
	if !looksAt(effects, "host", "server_addr", "server_port", "scheme", "https") {
		return p.members
	}
	return []member{q.member}
}

// looksAt reports whether any directive has one of the variables, or one whose name contains it.
func looksAt(effects [2][]effect, names ...string) bool {
	for _, side := range effects {
		for _, e := range side {
			for _, m := range variable.FindAllString(e.text, -1) {
				for _, name := range names {
					if strings.Contains(strings.ToLower(m), name) {
						return true
					}
				}
			}
		}
	}
	return false
}

// end is where one request ends in one tree.
type end struct {
	Side
	headers, answerHeaders []setting
}

// setting is a directive that adds a header, as it is written and with the values of its variables.
type setting struct{ text, value string }

// differences are the parts in which two ends differ. Headers are reduced to the ones that
// only one has.
func differences(old, new *end) (what []string) {
	add := func(name string, differ bool) {
		if differ {
			what = append(what, name)
		}
	}
	add("upstream", old.Upstream != new.Upstream)
	add("uri", old.URI != new.URI)
	add("status", old.Status != new.Status)
	add("redirect", old.Redirect != new.Redirect)
	add("file", old.File != new.File)
	add("error", old.Error != new.Error)
	old.Headers, new.Headers = onlyOf(old.headers, new.headers), onlyOf(new.headers, old.headers)
	old.AnswerHeaders = onlyOf(old.answerHeaders, new.answerHeaders)
	new.AnswerHeaders = onlyOf(new.answerHeaders, old.answerHeaders)
	add("headers", len(old.Headers)+len(new.Headers) > 0)
	add("answer headers", len(old.AnswerHeaders)+len(new.AnswerHeaders) > 0)
	return what
}

// onlyOf are the settings of a whose values b lacks: as they are written, with the value where b
// has the same text.
func onlyOf(a, b []setting) []string {
	var only []string
	for _, s := range a {
		switch {
		case slices.ContainsFunc(b, func(o setting) bool { return o.value == s.value }):
		case slices.ContainsFunc(b, func(o setting) bool { return o.text == s.text }):
			only = append(only, s.text+", which is "+s.value)
		default:
			only = append(only, s.text)
		}
	}
	return only
}

// like reports whether two changes of a pair are one: only the paths of their requests differ.
func (c *PairChange) like(o PairChange) bool {
	same := func(a, b Side) bool {
		return a.At == b.At && a.Upstream == b.Upstream && a.Status == b.Status &&
			slices.Equal(a.Headers, b.Headers) && slices.Equal(a.AnswerHeaders, b.AnswerHeaders)
	}
	return slices.Equal(c.What, o.What) && same(c.Old, o.Old) && same(c.New, o.New)
}

// hasRoot reports whether a server has a location for every path.
func hasRoot(server conf.Node) bool {
	for n := range server.Find("location") {
		if modifier, text := pattern(n); text == "/" && (modifier == "" || modifier == "^~") {
			return true
		}
	}
	return false
}

// follow takes one request through both trees, and, where files decide, without any file and with
// all. reached reports whether it comes to the pair's location in one of them; why is the reason
// when it cannot be followed in both.
func (p *pairComparer) follow(pair *locationPair, q probe) (ends [2]end, reached bool, why string) {
	for _, disk := range []fs.FS{nil, noFiles{}, allFiles{}} {
		was := why
		why = ""
		open := false // whether there are files decides
		var sides [2]end
		for i, r := range p.sides {
			w, err := r.follow(pair.nodes[i], q, disk)
			if pair.key == "" || strings.HasPrefix(pair.key, "@") ||
				pair.nodes[i].Directive != nil && w.reached == pair.nodes[i].Directive {
				reached = true
			}
			switch {
			case errors.Is(err, ErrUndecided):
				why = err.Error()
			case err != nil:
				sides[i] = end{Side: Side{Error: err.Error()}}
			default:
				sides[i] = w.end()
				open = open || sides[i].Upstream == "" && sides[i].Status == 0
			}
		}
		switch {
		case disk == nil && (why != "" || open):
		case why != "":
			return ends, reached, why
		case disk == nil:
			return sides, reached, ""
		default:
			ends, why = sides, ""
			if len(differences(&sides[0], &sides[1])) > 0 {
				return ends, reached, ""
			}
			was = ""
		}
		if disk != nil && was != "" {
			why = was
		}
	}
	return ends, reached, why
}

// follow walks one request; in a named location where it is one.
func (r *Router) follow(location conf.Node, q probe, disk fs.FS) (*walk, error) {
	q.request.Disk = disk
	w := r.walk(q.request)
	if err := w.start(); err != nil {
		return w, err
	}
	if q.noHost {
		w.host, w.hostport = "", ""
	}
	s := r.socket(q.member.key)
	if location.Directive == nil || !strings.HasPrefix(location.Arg(0), "@") {
		return w, w.run(s)
	}
	if s.err != nil {
		return w, s.err
	}
	server, err := w.byName(s)
	if err != nil {
		return w, err
	}
	w.server, w.at, w.internal = server, location, true
	w.uri, w.args, _ = normalize(w.raw, true)
	return w, ignoreDone(w.follow(errNamed))
}

// end is the answer of a walk with the values of its headers.
func (w *walk) end() end {
	e := end{Side: Side{Upstream: w.answer.Upstream, URI: w.answer.URI, Status: w.answer.Status,
		Redirect: w.answer.Location, File: w.answer.File}}
	if n := len(w.answer.Steps); n > 0 {
		pos := w.answer.Steps[n-1].At
		e.At = pos.File + ":" + strconv.Itoa(pos.Line)
	}
	for _, h := range w.headerNodes {
		e.headers = append(e.headers, w.shown(h))
	}
	for n := range w.inherited(w.at, "add_header", "more_set_headers", "more_clear_headers") {
		e.answerHeaders = append(e.answerHeaders, w.shown(n))
	}
	return e
}

// shown is a directive with the values of its variables, where they are known.
func (w *walk) shown(n conf.Node) setting {
	text, value := n.Name(), n.Name()
	for i := range n.NumArgs() {
		expanded, err := w.expand(n.Directive, n.Arg(i))
		if err != nil {
			expanded = n.Arg(i)
		}
		text += " " + n.RawArg(i)
		value += " " + conf.Quote(expanded)
	}
	return setting{text, value}
}

// noFiles is a machine without files, allFiles one where each path is there: a directory when its
// last part has no dot and no request is made up for it.
type (
	noFiles  struct{}
	allFiles struct{}
)

func (noFiles) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

func (allFiles) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: errors.ErrUnsupported}
}

// Stat implements fs.StatFS.
func (allFiles) Stat(name string) (fs.FileInfo, error) { return anyFile(path.Base(name)), nil }

type anyFile string

func (f anyFile) Name() string       { return string(f) }
func (f anyFile) Size() int64        { return 0 }
func (f anyFile) ModTime() time.Time { return time.Time{} }
func (f anyFile) Sys() any           { return nil }
func (f anyFile) IsDir() bool {
	return !strings.Contains(string(f)[min(1, len(f)):], ".") &&
		!strings.Contains(string(f), madeUp)
}

func (f anyFile) Mode() fs.FileMode {
	if f.IsDir() {
		return fs.ModeDir | 0o755
	}
	return 0o644
}

// samplesOf are texts that an expression matches, of paths when path is set.
func samplesOf(expr string, caseless bool, prefix string) []string {
	var found []string
	re, err := pcre.Compile(expr, caseless)
	if err != nil {
		return nil
	}
	for _, text := range pcre.Samples(expr, caseless) {
		for _, path := range []string{text, prefix + text, prefix + madeUp + text, prefix + madeUp +
			"/" + text} {
			if !strings.HasPrefix(path, prefix) {
				continue
			}
			if groups, err := re.Match(path); err == nil && groups != nil {
				found = append(found, path)
				break
			}
		}
	}
	return found
}
