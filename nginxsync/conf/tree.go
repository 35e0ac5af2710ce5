package conf

import (
	"iter"
	"slices"
	"strings"
	"sync"
)

// Tree is a configuration: its main file and all that it includes. It does not change after Parse
// and may be used by several goroutines.
type Tree struct {
	Main  *File
	files map[string]*File
	roots Roots
}

// File is one file of a tree.
type File struct {
	Name string // slash-separated path in the fs.FS
	Text string
	Body []*Directive // the directives at the file's top level, in order

	words    []word                 // of all directives, in order
	lists    []*Directive           // the children of all blocks, those of one block together
	included map[*Directive][]*File // by include directive
	index    sync.Once
	lines    []int32 // offsets at which lines begin
	count    int     // directives below, includes resolved
}

// Directive is one directive as it stands in a file.
//
// A large tree has hundreds of thousands: each field counts.
type Directive struct {
	file     *File
	first    int32 // index into file.words of the name
	count    int32 // words, the name among them
	end      int32 // offset after the ";" or the "}"
	body     int32 // offset after the "{"; 0 in a simple directive
	child    int32 // index into file.lists of the first child
	children int32 // their number
}

func (d *Directive) words() []word { return d.file.words[d.first : d.first+d.count] }

// start is the offset of the name, its quote included.
func (d *Directive) start() int {
	start, _ := d.file.words[d.first].span()
	return int(start)
}

// Files are the tree's files by name, in the order of their names.
func (t *Tree) Files() []*File {
	files := make([]*File, 0, len(t.files))
	for _, f := range t.files {
		files = append(files, f)
	}
	slices.SortFunc(files, func(a, b *File) int { return strings.Compare(a.Name, b.Name) })
	return files
}

// File is the file of that name, or nil.
func (t *Tree) File(name string) *File { return t.files[name] }

// Roots say where absolute paths are in the tree: see Parser.Roots.
func (t *Tree) Roots() Roots { return t.roots }

// Rebuild puts the file together again from its directives and the text between them. It equals
// Text: the proof that nothing was lost or moved.
func (f *File) Rebuild() string {
	var b strings.Builder
	b.Grow(len(f.Text))
	at := f.rebuild(&b, 0, f.Body)
	b.WriteString(f.Text[at:])
	return b.String()
}

func (f *File) rebuild(b *strings.Builder, at int32, list []*Directive) int32 {
	for _, d := range list {
		head := d.end
		if d.IsBlock() {
			head = d.body
		}
		if !d.ordered(at, head) {
			return at // the text that is missing now shows that something was moved
		}
		b.WriteString(f.Text[at:head])
		at = head
		if d.IsBlock() {
			at = f.rebuild(b, at, d.Children())
			b.WriteString(f.Text[at:d.end])
			at = d.end
		}
	}
	return at
}

// ordered reports whether the words follow each other between the offsets.
func (d *Directive) ordered(at, end int32) bool {
	for _, w := range d.words() {
		from, to := w.span()
		if from < at || to < from {
			return false
		}
		at = to
	}
	return at <= end
}

// Name is the directive's name.
func (d *Directive) Name() string { return value(d.file.Text, d.file.words[d.first]) }

// NumArgs is the number of arguments, the name not counted.
func (d *Directive) NumArgs() int { return int(d.count) - 1 }

// Arg is the i-th argument, from 0, as Nginx sees it: without quotes and escapes. It is empty when
// there is none.
func (d *Directive) Arg(i int) string {
	if i < 0 || i >= d.NumArgs() {
		return ""
	}
	return value(d.file.Text, d.words()[i+1])
}

// Args are all arguments.
func (d *Directive) Args() []string {
	args := make([]string, d.NumArgs())
	for i := range args {
		args[i] = d.Arg(i)
	}
	return args
}

// RawArg is the i-th argument as it is written, quotes and escapes included.
func (d *Directive) RawArg(i int) string {
	if i < 0 || i >= d.NumArgs() {
		return ""
	}
	start, end := d.words()[i+1].span()
	return d.file.Text[start:end]
}

// span of a word with its quotes.
func (w word) span() (start, end int32) {
	start, end = w.start, w.start+int32(w.size)
	if w.quote != 0 {
		return start - 1, end + 1
	}
	return start, end
}

// IsBlock reports whether the directive has a body in braces.
func (d *Directive) IsBlock() bool { return d.body != 0 }

// IsLua reports whether the body is Lua code.
func (d *Directive) IsLua() bool { return d.IsBlock() && strings.HasSuffix(d.Name(), luaSuffix) }

// Body is the text between the braces, or nothing in a simple directive.
func (d *Directive) Body() string {
	if !d.IsBlock() {
		return ""
	}
	return d.file.Text[d.body : d.end-1]
}

// Children are the directives in the body as they are written: an include is one of them.
// Node.Children resolves them.
func (d *Directive) Children() []*Directive {
	return d.file.lists[d.child : d.child+d.children : d.child+d.children]
}

// Text is the directive as it is written, from its name to its ";" or "}".
func (d *Directive) Text() string { return d.file.Text[d.start():d.end] }

// Pos is where the directive begins.
func (d *Directive) Pos() Pos { return d.file.pos(d.start()) }

// Offset is where in its file's text the directive begins.
func (d *Directive) Offset() int { return d.start() }

// File is the file that the directive stands in.
func (d *Directive) File() *File { return d.file }

// Included are the files that an include directive brings in, in Nginx's order.
func (d *Directive) Included() []*File {
	if d.Name() != "include" {
		return nil
	}
	return d.file.included[d]
}

// Node is a directive together with the blocks around it. A file that is included twice has its
// directives in two places.
type Node struct {
	*Directive
	// Parents are the blocks around the directive, outermost first; includes are left out.
	Parents []*Directive
}

// Parent is the block that the directive stands in, or nil in the main context.
func (n Node) Parent() *Directive {
	if len(n.Parents) == 0 {
		return nil
	}
	return n.Parents[len(n.Parents)-1]
}

// Children are the directives of the block in Nginx's order, those of included files in the place
// of the include.
func (n Node) Children() iter.Seq[Node] {
	return func(yield func(Node) bool) {
		if !n.IsBlock() {
			return
		}
		walkLevel(n.Directive.Children(), within(n.Parents, n.Directive), yield)
	}
}

// Path is the names of the blocks around the directive and its own.
func (n Node) Path() []string {
	path := make([]string, 0, len(n.Parents)+1)
	for _, p := range n.Parents {
		path = append(path, p.Name())
	}
	return append(path, n.Name())
}

// Top are the directives of the main context, in Nginx's order, those of included files in the
// place of the include.
func (t *Tree) Top() iter.Seq[Node] {
	return func(yield func(Node) bool) { walkLevel(t.Main.Body, nil, yield) }
}

// walkLevel steps through one context. An include directive itself is yielded too, before the
// directives that it brings in, so that an edit can reach it.
func walkLevel(list []*Directive, parents []*Directive, yield func(Node) bool) bool {
	for _, d := range list {
		if !yield(Node{Directive: d, Parents: parents}) {
			return false
		}
		for _, f := range d.Included() {
			if !walkLevel(f.Body, parents, yield) {
				return false
			}
		}
	}
	return true
}

// All are all directives, each before those in its body, in Nginx's order. Include directives are
// among them.
func (t *Tree) All() iter.Seq[Node] {
	return func(yield func(Node) bool) { (&walker{yield: yield}).all(t.Main.Body, nil) }
}

// All are all directives below the block.
func (n Node) All() iter.Seq[Node] {
	return func(yield func(Node) bool) {
		if n.IsBlock() {
			(&walker{yield: yield}).all(n.Directive.Children(), within(n.Parents, n.Directive))
		}
	}
}

type walker struct {
	yield func(Node) bool
	arena arena
}

func (w *walker) all(list, parents []*Directive) bool {
	for _, d := range list {
		if !w.yield(Node{Directive: d, Parents: parents}) {
			return false
		}
		if d.children > 0 {
			inner := w.arena.pointers(len(parents) + 1)
			copy(inner, parents)
			inner[len(parents)] = d
			if !w.all(d.Children(), inner) {
				return false
			}
		}
		for _, f := range d.Included() {
			if !w.all(f.Body, parents) {
				return false
			}
		}
	}
	return true
}

// within returns the parents of the directives in the block d: a slice of its own, which a caller
// may keep.
func within(parents []*Directive, d *Directive) []*Directive {
	inner := make([]*Directive, len(parents)+1)
	copy(inner, parents)
	inner[len(parents)] = d
	return inner
}

// Find are the directives whose path is the one given: Find("http", "server", "listen"). "*" stands
// for any one name, "**" for any number of blocks, none included: Find("http", "**", "proxy_pass").
func (t *Tree) Find(path ...string) iter.Seq[Node] {
	return func(yield func(Node) bool) { find(t.Top(), path, yield) }
}

// Find is Tree.Find with a path that begins in the block.
func (n Node) Find(path ...string) iter.Seq[Node] {
	return func(yield func(Node) bool) { find(n.Children(), path, yield) }
}

func find(level iter.Seq[Node], path []string, yield func(Node) bool) bool {
	if len(path) == 0 {
		return true
	}
	if path[0] == "**" {
		if !find(level, path[1:], yield) {
			return false
		}
		for n := range level {
			if n.IsBlock() && !find(n.Children(), path, yield) {
				return false
			}
		}
		return true
	}
	for n := range level {
		if path[0] != "*" && path[0] != n.Name() {
			continue
		}
		if len(path) == 1 {
			if !yield(n) {
				return false
			}
		} else if !find(n.Children(), path[1:], yield) {
			return false
		}
	}
	return true
}
