package transform

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/internal/listen"
	"github.com/sluice-deploy/sluice/nginxsync/internal/textfs"
)

// Generated is the name, beside the main file, of the file that Transform adds to a tree.
const Generated = "sluice.conf"

// Result is a transformed tree.
type Result struct {
	Main    string            // name of the main file
	ID      string            // 32 hexadecimal digits taken from the production tree and the rules
	Files   map[string]string // all files, by slash-separated name
	Changes []Change          // in the order of files and lines
	// Certificates are the files that have to be there before Nginx reads the tree, by
	// Rules.Certificates.
	Certificates []Certificate
	edit         *conf.Edit
}

// Change is one thing that Transform did, and why.
type Change struct {
	At     conf.Pos `json:"at"`
	Rule   string   `json:"rule"` // such as "listen", "upstream", "cache-key"
	Reason string   `json:"reason"`
}

// Transform makes the tree of a test Nginx out of a production tree. It touches only the directives
// that it must; everything else stays byte for byte as it is. The same tree and rules give the same
// result, and a tree that is already the result of the same rules is returned as it is. The error
// joins everything in the tree that the rules do not cover, each a *conf.Error.
func Transform(tree *conf.Tree, rules Rules) (*Result, error) {
	if err := rules.Validate(); err != nil {
		return nil, err
	}
	if rules.Selector != (Selector{}) && rules.Snippets.Enter == "" {
		return nil, fmt.Errorf("rules: selector: want Snippets of a driver, which looks at it: %w",
			ErrInvalid)
	}
	generated := path.Join(path.Dir(tree.Main.Name), Generated)
	if f := tree.File(generated); f != nil {
		return alreadyTransformed(tree, f, rules)
	}
	t := newTransform(tree, rules, generated)
	t.run()
	if len(t.errs) > 0 {
		return nil, t.failure()
	}
	files, err := t.edit.Files()
	if err != nil {
		return nil, err
	}
	files[generated] = marker(t.id, rules, files) + t.variables() + t.extra.String()
	r := &Result{Main: tree.Main.Name, ID: t.id, Files: files, Changes: t.ordered(),
		Certificates: t.needed, edit: t.edit}
	return r, t.check(r)
}

// check reads the result back: Nginx's tokenizer must accept each file, and no include of the tree
// may bring the generated file in a second time.
func (t *transform) check(r *Result) error {
	for _, name := range slices.Sorted(maps.Keys(r.Files)) {
		if err := conf.Check(name, r.Files[name]); err != nil {
			return fmt.Errorf("transformed tree: %w", err)
		}
	}
	for _, d := range t.includes {
		if t.tree.Includes(d, t.generated) {
			return d.Errorf("include %s: it would bring in %s a second time", d.Arg(0), t.generated)
		}
	}
	return nil
}

const markerLine = "# Written by nginxsync transform. Do not edit: transform the production tree " +
	"again.\n"

// marker returns the head of the generated file: the tree's id, and digests of the rules and of the
// other files.
func marker(id string, rules Rules, files map[string]string) string {
	var names strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(&names, "# file %s\n", name)
	}
	return fmt.Sprintf("%s%s%s\n# rules %s\n# files %s\n%s\n", markerLine, markerID, id,
		rules.digest(), digestFiles(files), names.String())
}

const markerID = "# tree "

func digestFiles(files map[string]string) string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(h, "%q %d ", name, len(files[name]))
		textfs.WriteTo(h, files[name])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// treeID identifies a production tree together with the rules.
func treeID(tree *conf.Tree, rules Rules) string {
	files := map[string]string{"": rules.digest() + tree.Main.Name}
	for _, f := range tree.Files() {
		files[f.Name] = f.Text
	}
	return digestFiles(files)[:32]
}

// alreadyTransformed returns the Result of a tree that Transform produced earlier.
func alreadyTransformed(tree *conf.Tree, generated *conf.File, rules Rules) (*Result, error) {
	files := map[string]string{}
	for _, f := range tree.Files() {
		if f != generated {
			files[f.Name] = f.Text
		}
	}
	head := strings.TrimPrefix(generated.Text, markerLine)
	id, _, _ := strings.Cut(strings.TrimPrefix(head, markerID), "\n")
	if !strings.HasPrefix(generated.Text, marker(id, rules, files)) {
		return nil, &conf.Error{File: generated.Name, Line: 1, Col: 1,
			Msg: "the tree was transformed already, by other rules or edited since: transform " +
				"the production tree itself"}
	}
	files[generated.Name] = generated.Text
	return &Result{Main: tree.Main.Name, ID: id, Files: files,
		Certificates: rules.certificatesOf(tree)}, nil
}

// transform is the state of one Transform.
type transform struct {
	tree      *conf.Tree
	id        string
	rules     Rules
	edit      *conf.Edit
	generated string
	includes  []*conf.Directive
	// of the generated file, for the http context
	extra strings.Builder
	// whether the driver serves an upstream
	driven bool
	// how many times production's connections its upstreams keep; 0 for not known yet
	keepalive int
	// by the name of the directive
	names map[string]*nameInfo
	// whether a header, parameter or variable of the name has a secret
	secretly map[string]bool
	// by variable: the text of its map, or the expression that it holds to upstreams
	guards  map[string]string
	defined map[string]*definitions
	// names of the groups of expressions, in lower case
	captured map[string]bool
	// of the rules, by host, ":" and port
	listenAt map[string]int
	// the servers that Rules.DefaultServer names, by address
	defaultOf map[string]*conf.Directive
	// directives that set variables
	setters []conf.Node
	// map, geo and split_clients
	tables []conf.Node
	// of the main context, such as stream
	acceptedBlocks map[*conf.Directive]bool
	// directives that may hold a secret
	secretive []conf.Node
	// variables that decide where a request goes, with their "$"
	routes map[string]bool
	// directives that pass requests on
	targets []conf.Node
	// by name, the directives of the http block itself besides servers and upstreams
	inHTTP map[string][]conf.Node
	// names of the tree's upstreams, in lower case
	inTree map[string]bool
	// upstreams to add, each with the one whose cluster it is
	added [][2]string
	// of production, by the upstream that stands for it
	hosts map[string]string
	// whether the tree names $proxy_host or $proxy_port; nil before it was asked
	mentions *bool
	// a key has one of them
	keyedByHost          bool
	hostHeader, hostName bool
	// upstreams that are asked over TLS
	tls map[string]bool
	// of temporary files and of caches
	dirs []directory
	// by location with limit_except, whose pages are cached
	excepted map[*conf.Directive]exceptedPage
	// headers that blocks of the tree set, and that the transform would add
	own map[field]bool
	// locations whose blocks have their default redirects stated
	redirected map[*conf.Directive]bool
	// a default key is stated
	stated bool
	// names in lower case, the added ones too
	upstreams map[string]bool
	// of the rules, by the upstream's name in lower case
	clusters map[string]string
	// the targets that requests go to, in order
	passed []pass
	// the tree keeps something under a token
	tokens bool
	// upstreams, in lower case, that are asked in another protocol than plain HTTP
	spoken map[string]bool
	// any upstream may be
	speaksAny bool
	changes   []change
	needed    []Certificate
	errs      []error
	seen      map[string]bool
}

func newTransform(tree *conf.Tree, rules Rules, generated string) *transform {
	clusters := make(map[string]string, len(rules.Clusters))
	for name, cluster := range rules.Clusters {
		clusters[strings.ToLower(name)] = cluster
	}
	at := make(map[string]int, len(rules.ListenAt))
	for address, to := range rules.ListenAt {
		from, _ := listen.Parse(address) // Validate did
		at[from.Host+":"+strconv.Itoa(from.First)] = to
	}
	return &transform{
		listenAt:       at,
		tree:           tree,
		id:             treeID(tree, rules),
		rules:          rules,
		edit:           tree.Edit(),
		generated:      generated,
		guards:         map[string]string{},
		clusters:       clusters,
		names:          map[string]*nameInfo{},
		secretly:       map[string]bool{},
		spoken:         map[string]bool{},
		acceptedBlocks: map[*conf.Directive]bool{},
		tls:            map[string]bool{},
		hosts:          map[string]string{},
	}
}

func (t *transform) changed(d *conf.Directive, rule, format string, args ...any) {
	t.note(d, rule, fmt.Sprintf(format, args...))
}

// note is changed for reasons that are given tens of thousands of times.
func (t *transform) note(d *conf.Directive, rule, reason string) {
	t.changes = append(t.changes, change{at: d, rule: rule, reason: reason})
}

// change is a Change whose line is not known yet. at is nil for an addition to the main file.
type change struct {
	at           *conf.Directive
	rule, reason string
}

// ordered are the changes in the order of files and lines, those of one place in the order of
// asking, each once.
func (t *transform) ordered() []Change {
	rank := map[*conf.File]int64{}
	for i, f := range t.tree.Files() {
		rank[f] = int64(i)
	}
	type place struct {
		at    int64 // the file and the offset
		asked int
	}
	places := make([]place, len(t.changes))
	file, first := t.tree.Main, rank[t.tree.Main]<<32
	for i, c := range t.changes {
		if c.at == nil {
			places[i] = place{rank[t.tree.Main] << 32, i}
			continue
		}
		if c.at.File() != file {
			file, first = c.at.File(), rank[c.at.File()]<<32
		}
		places[i] = place{first + int64(c.at.Offset()), i}
	}
	slices.SortFunc(places, func(a, b place) int {
		if a.at != b.at {
			return cmp.Compare(a.at, b.at)
		}
		return cmp.Compare(a.asked, b.asked)
	})
	changes := make([]Change, 0, len(places))
	var lines conf.PosReader
	for i, p := range places {
		c := t.changes[p.asked]
		if i > 0 && c == t.changes[places[i-1].asked] {
			continue
		}
		at := conf.Pos{File: t.tree.Main.Name, Line: 1, Col: 1}
		if c.at != nil {
			at = lines.Pos(c.at)
		}
		changes = append(changes, Change{At: at, Rule: c.rule, Reason: c.reason})
	}
	return changes
}

// nameInfo holds the facts that the transform knows of all directives of one name.
type nameInfo struct {
	directive
	rules  ruleSet
	nodes  []conf.Node       // those of the http context at any depth, when they are kept
	blocks []*conf.Directive // the blocks in it that have one, when they are inherited
	told   bool              // a notice about the name was given
}

// ruleSet is the set of rules that apply to a directive name, usually empty.
type ruleSet uint32

const (
	includeRule ruleSet = 1 << iota
	addressRule
	codeRule
	pathRule
	egressRule
	statusRule
	secretRule
	unknownRule
	sharedRule
	// The others are about the http context.
	passRule
	keyRule
	setRule
	tableRule
	altSvcRule
	codeCacheRule
	kept
	inherited
)

// keptNames are the directives of the http context that the transform looks at when it has seen
// all.
var keptNames = set("access_log", "add_header_inherit", "alias", "client_body_in_file_only",
	"dav_methods", "log_format", "proxy_cache_key", "root", "set_real_ip_from", "srcache_store",
	"srcache_store_skip", "upstream")

// below are the directives of the http context that have the name, at any depth.
func (t *transform) below(name string) []conf.Node { return t.info(name).nodes }

func (t *transform) info(name string) *nameInfo {
	a, ok := t.names[name]
	if !ok {
		a = &nameInfo{directive: directives()[name], rules: t.rulesFor(name)}
		t.names[name] = a
	}
	return a
}

// offersService are the directives that may hold the value of an Alt-Svc header.
var offersService = set("add_header", "map", "more_set_headers", "set")

func (t *transform) rulesFor(name string) ruleSet {
	d, known := directives()[name]
	keep := keptNames[name]
	hides := false
	for _, h := range headers {
		keep = keep || name == h.needs
		hides = hides || name == h.directive
	}
	for _, h := range t.rules.Snippets.hooks() {
		keep = keep || h.Name != "" && strings.HasPrefix(name, strings.TrimSuffix(h.Name, "_block"))
	}
	var rules ruleSet
	for _, r := range []struct {
		rule    ruleSet
		applies bool
	}{
		{includeRule, name == "include"},
		{addressRule, mayNameHost(name) || slices.Contains(t.rules.Drop, name) ||
			slices.Contains(t.rules.Accept, name)},
		{codeRule, code(name)},
		{pathRule, name == "include" || d.is(writes|reads)},
		{egressRule, d.is(outbound)},
		{statusRule, d.is(status)},
		{secretRule, secretive(name)},
		{unknownRule, !known && !understood(name)},
		{sharedRule, d.is(shares)},
		{passRule, passes(name)},
		{keyRule, d.is(keys)},
		{altSvcRule, offersService[name]},
		{codeCacheRule, name == "lua_code_cache"},
		{setRule, setsVariable(name)},
		{tableRule, name == "map" || name == "geo" || name == "split_clients"},
		{kept, keep},
		{inherited, hides},
	} {
		if r.applies {
			rules |= r.rule
		}
	}
	return rules
}

// refuse notes an error, once for a directive that stands in two places.
func (t *transform) refuse(d *conf.Directive, format string, args ...any) {
	err := d.Errorf(format, args...)
	if t.seen == nil {
		t.seen = map[string]bool{}
	}
	if !t.seen[err.Error()] {
		t.seen[err.Error()] = true
		t.errs = append(t.errs, err)
	}
}

func (t *transform) failure() error { return errors.Join(t.errs...) }

func (t *transform) run() {
	var http []conf.Node
	for n := range t.tree.Top() {
		if n.Name() == "http" && n.IsBlock() {
			http = append(http, n)
		}
	}
	if len(http) != 1 {
		t.errs = append(t.errs, &conf.Error{File: t.tree.Main.Name,
			Msg: fmt.Sprintf("%d http blocks, want one", len(http))})
		return
	}
	h := http[0]
	size := 0
	for _, f := range t.tree.Files() {
		size += len(f.Text)
	}
	t.changes = make([]change, 0, size/128)
	t.upstreams = map[string]bool{}
	for n := range h.Find("upstream") {
		t.upstreams[strings.ToLower(n.Arg(0))] = true
	}
	t.inTree = maps.Clone(t.upstreams)
	t.main()
	var block *conf.Directive // the parent of the last one
	skip := false
	for n := range t.tree.All() {
		a := t.info(n.Name())
		rules := a.rules
		if rules == 0 {
			continue
		}
		if parent := n.Parent(); parent != block {
			block, skip = parent, t.skipChildren(parent)
		}
		if skip && rules&includeRule == 0 || t.dropped(n) {
			continue
		}
		if len(n.Parents) > 0 && t.acceptedBlocks[n.Parents[0]] {
			rules &= includeRule | codeRule | pathRule | secretRule
		}
		t.apply(n, rules)
		if len(n.Parents) == 0 || n.Parents[0] != h.Directive {
			continue
		}
		if rules&passRule != 0 {
			t.targets = append(t.targets, n)
		}
		if rules&keyRule != 0 {
			t.keyed(n)
		}
		if rules&setRule != 0 {
			t.setters = append(t.setters, n)
			t.setKey(n)
		}
		if rules&tableRule != 0 {
			t.tables = append(t.tables, n)
			t.tableKey(n)
		}
		if rules&kept != 0 {
			a.nodes = append(a.nodes, n)
		}
		if rules&inherited != 0 && n.NumArgs() > 1 && n.Name() != "add_header" {
			t.ownField(n)
		}
		if last := len(a.blocks) - 1; rules&inherited != 0 &&
			(last < 0 || a.blocks[last] != n.Parent()) {
			a.blocks = append(a.blocks, n.Parent())
		}
	}
	t.inHTTP = map[string][]conf.Node{}
	for n := range h.Children() {
		if name := n.Name(); name != "server" && name != "upstream" {
			t.inHTTP[name] = append(t.inHTTP[name], n)
		}
	}
	t.belowRoots(h)
	t.capturedKeys(h)
	for _, n := range t.targets {
		t.pass(n)
	}
	t.routing()
	for _, n := range t.secretive {
		t.secrets(n)
	}
	t.pages()
	t.storedPages(h)
	t.servers(h)
	for _, n := range t.below("upstream") {
		t.upstream(n)
	}
	t.addUpstreams()
	t.writeHosts()
	t.productionHosts(h)
	t.writeGuards(h)
	t.logs(h)
	t.headers(h)
	t.defaults(h)
	t.caches()
	t.snippets(h)
	t.edit.Append(h.Directive, "include "+Generated+";")
	t.changed(h.Directive, "generated",
		"includes %s, which holds what the driver and the rules add", Generated)
}

// apply has the rules look at the directive that are about every context.
func (t *transform) apply(n conf.Node, rules ruleSet) {
	if rules&includeRule != 0 {
		t.includes = append(t.includes, n.Directive)
	}
	if rules&addressRule != 0 {
		t.connects(n)
	}
	if rules&codeRule != 0 {
		t.code(n)
	}
	if rules&pathRule != 0 {
		t.paths(n)
	}
	if rules&egressRule != 0 {
		t.egress(n)
	}
	if rules&statusRule != 0 {
		t.status(n)
	}
	if rules&unknownRule != 0 {
		t.unknown(n)
	}
	if rules&sharedRule != 0 {
		t.shared(n)
	}
	if rules&secretRule != 0 {
		t.secretive = append(t.secretive, n)
	}
	if rules&codeCacheRule != 0 {
		t.codeCache(n)
	}
	if rules&altSvcRule != 0 {
		t.altSvc(n)
	}
}
