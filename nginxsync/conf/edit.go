package conf

import (
	"cmp"
	"slices"
	"strings"
)

// Edit collects changes to a tree. Each is a splice of a byte span; the tree itself does not
// change. The same change asked for twice, as happens in a file that is included in two places, is
// one change. It is not safe for concurrent use.
type Edit struct {
	tree    *Tree
	splices map[*File]*[]splice // in the order of asking
	added   map[string]string
	// the same lines often go into many blocks, one after the other
	last struct{ text, indent, indented string }
}

type splice struct {
	start, end int32
	text       string
}

// Edit begins a set of changes.
func (t *Tree) Edit() *Edit {
	return &Edit{tree: t, splices: map[*File]*[]splice{}, added: map[string]string{}}
}

func (e *Edit) splice(f *File, start, end int, text string) {
	list := e.splices[f]
	if list == nil {
		made := make([]splice, 0, len(f.Text)/128)
		list = &made
		e.splices[f] = list
	}
	*list = append(*list, splice{start: int32(start), end: int32(end), text: text})
}

// ordered are the splices by place, those of one place in the order of asking, each once.
func (e *Edit) ordered(f *File) []splice {
	if e.splices[f] == nil {
		return nil
	}
	all := *e.splices[f]
	places := make([]uint64, len(all)) // start and number
	for i, s := range all {
		places[i] = uint64(s.start)<<32 | uint64(i)
	}
	slices.Sort(places)
	out := make([]splice, 0, len(all))
	for len(places) > 0 {
		n, from := 1, len(out)
		for n < len(places) && places[n]>>32 == places[0]>>32 {
			n++
		}
		for _, p := range places[:n] {
			if s := all[uint32(p)]; !slices.Contains(out[from:], s) {
				out = append(out, s)
			}
		}
		places = places[n:]
		slices.SortStableFunc(out[from:], func(a, b splice) int {
			return cmp.Compare(a.end, b.end)
		})
	}
	return out
}

// Replace puts text in the place of the directive.
func (e *Edit) Replace(d *Directive, text string) { e.splice(d.file, d.start(), int(d.end), text) }

// ReplaceLines is Replace with text of several lines, each with the directive's indentation. Text
// that follows the directive on its line goes to a line of its own, so that the new text may end in
// a comment.
func (e *Edit) ReplaceLines(d *Directive, text string) {
	indent := indentBefore(d.file.Text, d.start())
	text = indented(text, indent)
	rest, _, _ := strings.Cut(d.file.Text[d.end:], "\n")
	if strings.TrimSpace(rest) != "" {
		text += "\n" + indent
	}
	e.Replace(d, text)
}

// Rename gives the directive another name.
func (e *Edit) Rename(d *Directive, name string) { e.replaceWord(d, 0, Quote(name)) }

// ReplaceArg gives the i-th argument, from 0, another value. It is quoted where it must be.
func (e *Edit) ReplaceArg(d *Directive, i int, value string) { e.replaceWord(d, i+1, Quote(value)) }

// ReplaceRawArg is ReplaceArg with text that is written as it is.
func (e *Edit) ReplaceRawArg(d *Directive, i int, text string) { e.replaceWord(d, i+1, text) }

func (e *Edit) replaceWord(d *Directive, i int, text string) {
	start, end := d.words()[i].span()
	e.splice(d.file, int(start), int(end), text)
}

// ReplaceArgs gives the directive other arguments. They are quoted where they must be.
func (e *Edit) ReplaceArgs(d *Directive, args ...string) {
	var b strings.Builder
	for _, a := range args {
		b.WriteByte(' ')
		b.WriteString(Quote(a))
	}
	_, start := d.words()[0].span()
	_, end := d.words()[d.count-1].span()
	e.splice(d.file, int(start), int(end), b.String())
}

// InsertArg puts one more argument, written as text, in front of the i-th; with i the number of
// arguments, behind the last.
func (e *Edit) InsertArg(d *Directive, i int, text string) {
	_, end := d.words()[i].span()
	e.splice(d.file, int(end), int(end), " "+text)
}

// ReplaceBody puts text between the braces of a block, in the place of its content.
func (e *Edit) ReplaceBody(d *Directive, text string) {
	e.splice(d.file, int(d.body), int(d.end)-1, text)
}

// Remove takes the directive away, together with its line when nothing else stands on it.
func (e *Edit) Remove(d *Directive) {
	text, start, end := d.file.Text, d.start(), int(d.end)
	from := start - len(indentBefore(text, start))
	to := end
	for to < len(text) && (text[to] == ' ' || text[to] == '\t' || text[to] == '\r') {
		to++
	}
	if (from == 0 || text[from-1] == '\n') && to < len(text) && text[to] == '\n' {
		start, end = from, to+1
	}
	e.splice(d.file, start, end, "")
}

// InsertBefore puts text in front of the directive, on lines of its own with the directive's
// indentation.
func (e *Edit) InsertBefore(d *Directive, text string) {
	indent := indentBefore(d.file.Text, d.start())
	e.splice(d.file, d.start(), d.start(), indented(text, indent)+"\n"+indent)
}

// InsertAfter puts text behind the directive, on lines of its own with the directive's indentation.
func (e *Edit) InsertAfter(d *Directive, text string) {
	indent := indentBefore(d.file.Text, d.start())
	e.splice(d.file, int(d.end), int(d.end), "\n"+indent+indented(text, indent))
}

// Prepend puts text first into the body of a block, on lines of its own.
func (e *Edit) Prepend(d *Directive, text string) {
	indent := d.innerIndent()
	e.splice(d.file, int(d.body), int(d.body), "\n"+indent+indented(text, indent))
}

// Append puts text last into the body of a block, on lines of its own.
func (e *Edit) Append(d *Directive, text string) {
	indent := d.innerIndent()
	closing := int(d.end) - 1
	if before := indentBefore(d.file.Text, closing); closing-len(before) > 0 &&
		d.file.Text[closing-len(before)-1] == '\n' {
		at := closing - len(before)
		if l := &e.last; l.text != text || l.indent != indent {
			l.text, l.indent, l.indented = text, indent, indent+indented(text, indent)+"\n"
		}
		e.splice(d.file, at, at, e.last.indented)
		return
	}
	outer := indentBefore(d.file.Text, d.start())
	e.splice(d.file, closing, closing, "\n"+indent+indented(text, indent)+"\n"+outer)
}

// PrependFile puts text on lines of its own at the beginning of a file.
func (e *Edit) PrependFile(f *File, text string) { e.splice(f, 0, 0, text+"\n") }

// AddFile adds a file to the tree. Files reports a name that the tree has already.
func (e *Edit) AddFile(name, text string) { e.added[name] = text }

// innerIndent is the indentation of the block's first directive that begins a line, or the block's
// own and four spaces.
func (d *Directive) innerIndent() string {
	for _, c := range d.Children() {
		indent := indentBefore(d.file.Text, c.start())
		if at := c.start() - len(indent); at > 0 && d.file.Text[at-1] == '\n' {
			return indent
		}
	}
	return indentBefore(d.file.Text, d.start()) + "    "
}

// indentBefore is the white space before the offset, back to the beginning of the line. Where other
// text stands before it on the line, it is the line's indentation.
func indentBefore(text string, offset int) string {
	from := offset
	for from > 0 && (text[from-1] == ' ' || text[from-1] == '\t') {
		from--
	}
	if from > 0 && text[from-1] != '\n' {
		// Not the first on its line: repeat the line's own indentation.
		line := strings.LastIndexByte(text[:from], '\n') + 1
		end := line
		for text[end] == ' ' || text[end] == '\t' {
			end++
		}
		return text[line:end]
	}
	return text[from:offset]
}

func indented(text, indent string) string {
	return strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n"+indent)
}

// Files are the contents of all files of the tree after the changes, by name. Changes that overlap
// are an *Error.
func (e *Edit) Files() (map[string]string, error) {
	files := make(map[string]string, len(e.tree.files)+len(e.added))
	for name, f := range e.tree.files {
		text, err := apply(f, e.ordered(f))
		if err != nil {
			return nil, err
		}
		files[name] = text
	}
	for name, text := range e.added {
		if _, ok := files[name]; ok {
			return nil, &Error{File: name, Msg: "file to be added is already in the tree"}
		}
		files[name] = text
	}
	return files, nil
}

// Origin returns the line of the tree's file that a line of the file after the changes comes from:
// for one that a change added, the line of the change. It reports false when the tree has no such
// file, or the file no such line. Lines count from 1.
func (e *Edit) Origin(name string, line int) (int, bool) {
	f := e.tree.files[name]
	if f == nil || line < 1 {
		return 0, false
	}
	ordered := e.ordered(f)
	text, err := apply(f, ordered)
	if err != nil {
		return 0, false
	}
	end := -1 // of the line: its line break, or the end of the text
	for range line {
		if end >= len(text) {
			return 0, false
		}
		if next := strings.IndexByte(text[end+1:], '\n'); next >= 0 {
			end += 1 + next
		} else {
			end = len(text)
		}
	}
	shift := 0 // of the text after the changes
	for _, s := range ordered {
		from := int(s.start) + shift
		if end < from {
			break
		}
		if end < from+len(s.text) {
			return f.pos(int(s.start)).Line, true
		}
		shift += len(s.text) - int(s.end-s.start)
	}
	return f.pos(min(end-shift, len(f.Text))).Line, true
}

// apply writes the file with the splices, which are in order.
func apply(f *File, ordered []splice) (string, error) {
	if len(ordered) == 0 {
		return f.Text, nil
	}
	size := len(f.Text)
	for _, s := range ordered {
		size += len(s.text) - int(s.end-s.start)
	}
	var b strings.Builder
	b.Grow(max(size, 0))
	at := int32(0)
	for _, s := range ordered {
		if s.start < at {
			return "", f.errorf(int(s.start), "two changes of the same text")
		}
		b.WriteString(f.Text[at:s.start])
		b.WriteString(s.text)
		at = s.end
	}
	b.WriteString(f.Text[at:])
	return b.String(), nil
}

// Quote is value as one token: as it is where Nginx would read it back so, in double quotes
// otherwise.
func Quote(value string) string {
	if value != "" && !strings.ContainsAny(value[:1], "\"'#{};$\\") &&
		!strings.ContainsAny(value, " \t\r\n;{\\") {
		return value
	}
	if plain := strings.HasPrefix(value, "$") && !strings.ContainsAny(value, " \t\r\n;{\\"); plain {
		return value
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := 0; i < len(value); i++ {
		switch c := value[i]; c {
		case '"':
			b.WriteString(`\"`)
		case '\\':
			b.WriteString(`\\`)
		case '\n':
			b.WriteString(`\n`)
		case '\r':
			b.WriteString(`\r`)
		case '\t':
			b.WriteString(`\t`)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
