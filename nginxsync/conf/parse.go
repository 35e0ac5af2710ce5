package conf

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Parser has the limits of reading. The zero value is ready to use.
type Parser struct {
	// Roots say where absolute paths are in the fs.FS: with the default, an include of
	// /etc/nginx/mime.types is the file mime.types.
	Roots Roots
	// MaxFileSize is the size in bytes from which a file is refused unread. The default is 64 MiB.
	MaxFileSize int64
	// MaxSize is the same for all files together. The default is 256 MiB.
	MaxSize int64
	// MaxDepth is how deep includes, and how deep blocks, may nest. The default is 64.
	MaxDepth int
	// MaxDirectives is the number of directives, those of a file counted each time that it is
	// included. The default is 20,000,000.
	MaxDirectives int
}

// Parse reads the file main of fsys and all that it includes, with the limits of the zero Parser.
// The error is an *Error.
func Parse(fsys fs.FS, main string) (*Tree, error) { return Parser{}.Parse(fsys, main) }

// ParseFile reads one file's text. Include directives are left unresolved. The error is an *Error.
func ParseFile(name, text string) (*File, error) {
	r := &reader{Parser: Parser{}.withDefaults(), tree: &Tree{}}
	f := &File{Name: name, Text: text}
	if int64(len(text)) > r.MaxFileSize {
		return nil, &Error{File: name, Msg: fmt.Sprintf("%d bytes, limit is %d", len(text),
			r.MaxFileSize), Err: errTooLarge}
	}
	return f, r.parse(f)
}

// Parse reads the file main of fsys and all that it includes. The error is an *Error. A file that
// has a method "Text() string" gives its content by it, which saves a copy.
func (p Parser) Parse(fsys fs.FS, main string) (*Tree, error) {
	p = p.withDefaults()
	r := &reader{Parser: p, fsys: fsys, dir: path.Dir(path.Clean(main)),
		tree: &Tree{files: map[string]*File{}, roots: p.Roots}}
	f, err := r.file(path.Clean(main), nil)
	if err != nil {
		return nil, err
	}
	r.tree.Main = f
	return r.tree, nil
}

func (p Parser) withDefaults() Parser {
	p.Roots = p.Roots.OrDefault()
	if p.MaxFileSize <= 0 {
		p.MaxFileSize = 64 << 20
	}
	if p.MaxSize <= 0 {
		p.MaxSize = 256 << 20
	}
	if p.MaxDepth <= 0 {
		p.MaxDepth = 64
	}
	if p.MaxDirectives <= 0 {
		p.MaxDirectives = 20_000_000
	}
	// Offsets are 32 bits wide.
	p.MaxFileSize = min(p.MaxFileSize, 1<<30)
	return p
}

type reader struct {
	Parser
	fsys fs.FS
	dir  string // of the main file: relative includes are relative to it, in every file
	tree *Tree
	size int64
	open []string // names of the files that are being read, main first
}

// file reads a file or takes it from those already read. from is the include that asks for it, nil
// for the main file.
func (r *reader) file(name string, from *Directive) (*File, error) {
	refuse := func(cause error, format string, args ...any) error {
		e := &Error{File: name, Msg: fmt.Sprintf(format, args...), Err: cause}
		if from != nil {
			pos := from.Pos()
			e.File, e.Line, e.Col, e.Msg = pos.File, pos.Line, pos.Col,
				fmt.Sprintf("include %s: %s", name, e.Msg)
		}
		return e
	}
	if i := slices.Index(r.open, name); i >= 0 {
		return nil, refuse(nil, "include cycle: %s",
			strings.Join(append(slices.Clone(r.open[i:]), name), " > "))
	}
	if f := r.tree.files[name]; f != nil {
		return f, nil
	}
	if len(r.open) >= r.MaxDepth {
		return nil, refuse(nil, "includes nest deeper than %d", r.MaxDepth)
	}
	text, err := r.read(name)
	if err != nil {
		return nil, refuse(err, "read")
	}
	f := &File{Name: name, Text: text}
	r.open = append(r.open, name)
	if err := r.parse(f); err != nil {
		return nil, err
	}
	r.open = r.open[:len(r.open)-1]
	r.tree.files[name] = f
	return f, nil
}

var errTooLarge = errors.New("larger than allowed")

func (r *reader) read(name string) (string, error) {
	f, err := r.fsys.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s: not a regular file", name)
	}
	limit := min(r.MaxFileSize, r.MaxSize-r.size)
	if info.Size() > limit {
		return "", fmt.Errorf("%w: %d bytes, limit is %d", errTooLarge, info.Size(), limit)
	}
	if whole, ok := f.(interface{ Text() string }); ok && int64(len(whole.Text())) == info.Size() {
		r.size += info.Size()
		return whole.Text(), nil
	}
	var b strings.Builder
	b.Grow(int(info.Size()))
	n, err := io.Copy(&b, io.LimitReader(f, limit+1))
	if err != nil {
		return "", err
	}
	if n > limit {
		return "", fmt.Errorf("%w: more than %d bytes", errTooLarge, limit)
	}
	r.size += n
	return b.String(), nil
}

const bom = "\xef\xbb\xbf"

func (r *reader) parse(f *File) error {
	s := newScanner(f.Text)
	s.words = make([]word, 0, len(f.Text)/16+4)
	type level struct {
		block *Directive // nil at the top of the file
		first int        // index into open of the first directive in it
	}
	stack := []level{{}}
	var open []*Directive // the directives of all levels that are open, the outermost first
	var arena arena
	// As many directives as there can be, were no ";" or "{" in a comment or a word.
	lists := make([]*Directive, 0, min(strings.Count(f.Text, ";")+strings.Count(f.Text, "{"),
		len(f.Text)/16))
	for {
		kind, failed := s.next()
		if failed != nil {
			return f.errorf(failed.offset, "%s", failed.msg)
		}
		top := &stack[len(stack)-1]
		switch kind {
		case tokenEOF:
			if top.block != nil {
				return f.errorf(len(f.Text), "unexpected end of file, expecting \"}\"")
			}
			f.lists = append(lists, open...)
			f.Body = slices.Clip(f.lists[len(lists):])
			return nil
		case tokenClose:
			if top.block == nil {
				return f.errorf(s.pos-1, "unexpected \"}\"")
			}
			d := top.block
			d.end, d.child, d.children = int32(s.pos), int32(len(lists)), int32(len(open)-top.first)
			lists = append(lists, open[top.first:]...)
			open = open[:top.first]
			stack = stack[:len(stack)-1]
			continue
		}
		d := arena.directive(len(f.Text) - s.pos)
		words := s.words[s.first:]
		start, _ := words[0].span()
		*d = Directive{file: f, first: int32(s.first), count: int32(len(words)), end: int32(s.pos)}
		f.words = s.words
		name := d.Name()
		if start == 0 && strings.HasPrefix(name, bom) {
			return f.errorf(0, "unknown directive %q: the file begins with a byte order mark, "+
				"which Nginx takes for a part of the name", name)
		}
		open = append(open, d)
		f.count++
		if f.count > r.MaxDirectives {
			return tooMany(d, r.MaxDirectives)
		}
		if kind == tokenSimple {
			if name == "include" && r.fsys != nil && !keepsIncludes(top.block) {
				if err := r.include(d); err != nil {
					return err
				}
				for _, in := range d.Included() {
					f.count += in.count
				}
				if f.count > r.MaxDirectives {
					return tooMany(d, r.MaxDirectives)
				}
			}
			continue
		}
		d.body = int32(s.pos)
		if strings.HasSuffix(name, luaSuffix) {
			if failed := s.lua(); failed != nil {
				return f.errorf(failed.offset, "%s", failed.msg)
			}
			d.end = int32(s.pos)
			continue
		}
		if len(stack) > r.MaxDepth {
			return f.errorf(int(start), "blocks nest deeper than %d", r.MaxDepth)
		}
		stack = append(stack, level{block: d, first: len(open)})
	}
}

// arena hands out directives and lists of them from larger pieces of memory.
type arena struct {
	directives []Directive
	lists      []*Directive
	size       int // of the last piece for lists
}

// directive is an empty one. left is the number of bytes that are still to be read.
func (a *arena) directive(left int) *Directive {
	if len(a.directives) == 0 {
		a.directives = make([]Directive, min(max(left/40, 1), 1024))
	}
	d := &a.directives[0]
	a.directives = a.directives[1:]
	return d
}

// pointers is an empty list of that length.
func (a *arena) pointers(n int) []*Directive {
	if n > 256 {
		return make([]*Directive, n)
	}
	if n > len(a.lists) {
		a.size = min(max(2*a.size, 256), 4096)
		a.lists = make([]*Directive, a.size)
	}
	out := a.lists[:n:n]
	a.lists = a.lists[n:]
	return out
}

func tooMany(d *Directive, limit int) error {
	return d.errorf("more than %d directives, those of included files counted", limit)
}

// keepsIncludes reports whether "include" has no meaning of its own in the block.
func keepsIncludes(block *Directive) bool {
	return block != nil && (block.Name() == "charset_map" || block.Name() == "split_clients")
}

func (r *reader) include(d *Directive) error {
	name, err := r.tree.includeName(d, r.dir)
	if err != nil {
		return err
	}
	names := []string{name}
	if strings.ContainsAny(d.Arg(0), "*?[") {
		if names, err = glob(r.fsys, name); err != nil {
			return d.errorf("include %s: %s", d.Arg(0), err)
		}
	}
	for _, name := range names {
		f, err := r.file(name, d)
		if err != nil {
			return err
		}
		if d.file.included == nil {
			d.file.included = map[*Directive][]*File{}
		}
		d.file.included[d] = append(d.file.included[d], f)
	}
	return nil
}

// includeName is the name, or the pattern, of an include directive in the tree. dir is the
// directory of the main file.
func (t *Tree) includeName(d *Directive, dir string) (string, error) {
	if d.NumArgs() != 1 {
		return "", d.errorf("invalid number of arguments in \"include\" directive")
	}
	abs, name := d.Arg(0), path.Join(dir, d.Arg(0))
	if from, ok := t.roots.Abs(dir); ok && !path.IsAbs(abs) {
		abs = path.Join(from, abs)
	}
	if path.IsAbs(abs) {
		var ok bool
		if name, ok = t.roots.Name(abs); !ok {
			return "", d.errorf("include %s: outside the tree, which stands for %s; "+
				"say under roots where it is taken from", d.Arg(0), t.roots)
		}
	}
	if !fs.ValidPath(name) {
		return "", d.errorf("include %s: outside the tree, which stands for %s", d.Arg(0), t.roots)
	}
	return name, nil
}

// IncludeName returns the name in the tree, or the pattern, of an include directive. The error is
// an *Error.
func (t *Tree) IncludeName(d *Directive) (string, error) {
	return t.includeName(d, path.Dir(t.Main.Name))
}

// Includes reports whether the include directive would bring in a file of that name, if the tree
// had one.
func (t *Tree) Includes(d *Directive, name string) bool {
	pattern, err := t.includeName(d, path.Dir(t.Main.Name))
	if err != nil || d.Name() != "include" {
		return false
	}
	if !strings.ContainsAny(pattern, "*?[") {
		return pattern == name
	}
	parts, names := strings.Split(pattern, "/"), strings.Split(name, "/")
	if len(parts) != len(names) {
		return false
	}
	for i, part := range parts {
		if !globMatch(part, names[i]) {
			return false
		}
	}
	return true
}

// Check reads a file's text as ParseFile does, and keeps nothing of it. The error is an *Error.
func Check(name, text string) error {
	f := &File{Name: name, Text: text}
	s := newScanner(text)
	for depth := 0; ; {
		s.words = s.words[:0]
		kind, failed := s.next()
		if failed == nil && kind == tokenBlock && strings.HasSuffix(value(text, s.words[0]),
			luaSuffix) {
			kind, failed = tokenSimple, s.lua()
		}
		switch {
		case failed != nil:
			return f.errorf(failed.offset, "%s", failed.msg)
		case kind == tokenBlock:
			depth++
		case kind == tokenClose && depth == 0:
			return f.errorf(s.pos-1, "unexpected \"}\"")
		case kind == tokenClose:
			depth--
		case kind == tokenEOF && depth > 0:
			return f.errorf(len(text), "unexpected end of file, expecting \"}\"")
		case kind == tokenEOF:
			return nil
		}
	}
}
