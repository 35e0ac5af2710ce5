package nginxsync

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

// Generated is the name, beside the main file, of the file that Transform adds to a tree.
const Generated = "sluice.conf"

// Result is a transformed tree.
type Result struct {
	Main    string            // name of the main file
	ID      string            // 32 hexadecimal digits taken from the production tree and the rules
	Files   map[string]string // all files, by slash-separated name
	Changes []Change          // in the order of files and lines
	edit    *conf.Edit
}

// Change is one thing that Transform did, and why.
type Change struct {
	At     conf.Pos
	Rule   string // such as "listen", "upstream", "cache-key"
	Reason string
}

// Transform makes the tree of a test Nginx out of a production tree. It touches only what it must; everything else
// stays byte for byte as it is. The same tree and rules give the same result, and a tree that is already the result of the same
// rules is returned as it is. The error joins everything in the tree that the rules do not cover, each a *conf.Error.
func Transform(tree *conf.Tree, rules Rules) (*Result, error) {
	if err := rules.validate(); err != nil {
		return nil, err
	}
	generated := path.Join(path.Dir(tree.Main.Name), Generated)
	if f := tree.File(generated); f != nil {
		return again(tree, f, rules)
	}
	t := &transform{tree: tree, id: treeID(tree, rules), rules: rules, edit: tree.Edit(), generated: generated, used: map[string]bool{}, guards: map[string]string{}, below: map[string][]conf.Node{}, kinds: map[string]kind{}, secretly: map[string]bool{}}
	t.run()
	if len(t.errs) > 0 {
		return nil, t.failure()
	}
	files, err := t.edit.Files()
	if err != nil {
		return nil, err
	}
	files[generated] = marker(t.id, rules, files) + t.extra.String()
	slices.SortStableFunc(t.changes, func(a, b Change) int {
		return cmp.Or(cmp.Compare(a.At.File, b.At.File), cmp.Compare(a.At.Line, b.At.Line), cmp.Compare(a.At.Col, b.At.Col))
	})
	r := &Result{Main: tree.Main.Name, ID: t.id, Files: files, Changes: slices.Compact(t.changes), edit: t.edit}
	return r, t.check(r)
}

// check reads the result back: Nginx's tokenizer must accept each file, and no include of the tree may bring the generated file
// in a second time.
func (t *transform) check(r *Result) error {
	for _, name := range sortedKeys(r.Files) {
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

const markerLine = "# Written by nginxsync transform. Do not edit: transform the production tree again.\n"

// marker heads the generated file: what it was made with, and of what the other files consist.
func marker(id string, rules Rules, files map[string]string) string {
	var names strings.Builder
	for _, name := range sortedKeys(files) {
		fmt.Fprintf(&names, "# file %s\n", name)
	}
	return fmt.Sprintf("%s%s%s\n# rules %s\n# files %s\n%s\n", markerLine, markerID, id, rules.digest(), digestFiles(files), names.String())
}

const markerID = "# tree "

func digestFiles(files map[string]string) string {
	h := sha256.New()
	for _, name := range sortedKeys(files) {
		fmt.Fprintf(h, "%q %d ", name, len(files[name]))
		writeString(h, files[name])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// writeString writes through a small buffer: io.WriteString would copy the whole of a large text.
func writeString(w io.Writer, text string) {
	var buffer [16 << 10]byte
	for len(text) > 0 {
		n := copy(buffer[:], text)
		w.Write(buffer[:n])
		text = text[n:]
	}
}

// treeID identifies a production tree together with the rules.
func treeID(tree *conf.Tree, rules Rules) string {
	files := map[string]string{"": rules.digest() + tree.Main.Name}
	for _, f := range tree.Files() {
		files[f.Name] = f.Text
	}
	return digestFiles(files)[:32]
}

// again is the result for a tree that is a result already.
func again(tree *conf.Tree, generated *conf.File, rules Rules) (*Result, error) {
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
			Msg: "the tree was transformed already, by other rules or edited since: transform the production tree itself"}
	}
	files[generated.Name] = generated.Text
	return &Result{Main: tree.Main.Name, ID: id, Files: files}, nil
}

// transform is the state of one Transform.
type transform struct {
	tree      *conf.Tree
	id        string
	rules     Rules
	edit      *conf.Edit
	generated string
	includes  []*conf.Directive
	extra     strings.Builder        // of the generated file, for the http context
	used      map[string]bool        // balancing methods that the driver honours
	kinds     map[string]kind        // by the name of the directive
	secretly  map[string]bool        // whether a header, parameter or variable of the name has a secret
	below     map[string][]conf.Node // directives of the http context by name, at any depth, of the kind wanted
	guards    map[string]string      // variables by the expression that they hold to upstreams
	upstreams map[string]bool        // names in lower case, the added ones too
	changes   []Change
	errs      []error
	seen      map[string]bool
	keys      int
}

func (t *transform) changed(d *conf.Directive, rule, format string, args ...any) {
	t.note(d, rule, fmt.Sprintf(format, args...))
}

// note is changed for reasons that are given tens of thousands of times.
func (t *transform) note(d *conf.Directive, rule, reason string) {
	t.changes = append(t.changes, Change{At: d.Pos(), Rule: rule, Reason: reason})
}

// kind says which rules look at the directives of a name: most names are nobody's.
type kind uint8

const (
	plainRules  kind = 1 << iota // everywhere
	addressRule                  // everywhere, about connections
	httpRules                    // in the http context
	wanted                       // in transform.below
)

func (t *transform) kind(name string) kind {
	k, ok := t.kinds[name]
	if ok {
		return k
	}
	if name == "include" || writes[name] || reads[name] || code(name) || own[name] || statusPages[name] || secretive(name) {
		k |= plainRules
	}
	if addressed(name) || slices.Contains(t.rules.Drop, name) || slices.Contains(t.rules.Accept, name) {
		k |= addressRule
	}
	if passes(name) || keys[name] {
		k |= httpRules
	}
	if name == "upstream" || name == "proxy_cache" || name == "log_format" || name == "access_log" || name == "set_real_ip_from" {
		k |= wanted
	}
	for _, h := range headers {
		if name == h.directive || name == h.needs {
			k |= wanted
		}
	}
	for _, h := range t.rules.Snippets.Hooks {
		if strings.HasPrefix(name, strings.TrimSuffix(h.Name, "_block")) {
			k |= wanted
		}
	}
	t.kinds[name] = k
	return k
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
		t.errs = append(t.errs, &conf.Error{File: t.tree.Main.Name, Msg: fmt.Sprintf("%d http blocks, want one", len(http))})
		return
	}
	h := http[0]
	size := 0
	for _, f := range t.tree.Files() {
		size += len(f.Text)
	}
	matter := make([]conf.Node, 0, size/64)
	for n := range t.tree.All() {
		k := t.kind(n.Name())
		if k == 0 || inData(n) && n.Name() != "include" || t.givesWay(n) || t.dropped(n) {
			continue
		}
		if k == addressRule {
			t.connects(n)
			continue
		}
		matter = append(matter, n)
		if n.Name() == "include" {
			t.includes = append(t.includes, n.Directive)
		}
		if k&wanted != 0 && len(n.Parents) > 0 && n.Parents[0] == h.Directive {
			t.below[n.Name()] = append(t.below[n.Name()], n)
		}
	}
	t.changes = slices.Grow(t.changes, len(matter)/2)
	t.upstreams = make(map[string]bool, len(t.below["upstream"]))
	for _, n := range t.below["upstream"] {
		t.upstreams[strings.ToLower(n.Arg(0))] = true
	}
	t.variables()
	t.main()
	for _, n := range matter {
		k := t.kind(n.Name())
		if k&addressRule != 0 {
			t.connects(n)
		}
		if k&plainRules != 0 {
			t.code(n)
			t.paths(n)
			t.egress(n)
			t.status(n)
			t.secrets(n)
		}
		if k&httpRules != 0 && len(n.Parents) > 0 && n.Parents[0] == h.Directive {
			t.pass(n)
			t.keyed(n)
		}
	}
	t.servers(h)
	for _, n := range t.below["upstream"] {
		t.upstream(n)
	}
	t.writeGuards(h)
	t.logs(h)
	t.headers(h)
	t.defaults(h)
	t.snippets(h)
	t.edit.Append(h.Directive, "include "+Generated+";")
	t.changed(h.Directive, "generated", "includes %s, which holds what the driver and the rules add", Generated)
}
