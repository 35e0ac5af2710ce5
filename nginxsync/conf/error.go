package conf

import (
	"fmt"
	"sort"
	"strings"
)

// Error is a problem of a configuration, with its place. For problems that Nginx itself reports,
// Msg is Nginx's wording.
type Error struct {
	File string // as the tree knows it: a slash-separated path in the fs.FS
	Line int    // from 1; 0 when the file as a whole is meant
	Col  int    // in bytes, from 1; 0 when the file as a whole is meant
	Msg  string
	Err  error // the cause, when there is one that a caller may ask for with errors.Is
}

func (e *Error) Error() string {
	at := e.File
	if e.Line > 0 {
		at = fmt.Sprintf("%s:%d:%d", e.File, e.Line, e.Col)
	}
	switch {
	case e.Err == nil:
		return at + ": " + e.Msg
	case e.Msg == "":
		return at + ": " + e.Err.Error()
	}
	return at + ": " + e.Msg + ": " + e.Err.Error()
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// Pos is a place in a file of the tree.
type Pos struct {
	File string
	Line int // from 1
	Col  int // in bytes, from 1
}

// String is "file:line".
func (p Pos) String() string { return fmt.Sprintf("%s:%d", p.File, p.Line) }

func (f *File) pos(offset int) Pos {
	f.index.Do(func() {
		f.lines = append(make([]int32, 0, strings.Count(f.Text, "\n")+1), 0)
		for i := 0; ; {
			next := strings.IndexByte(f.Text[i:], '\n')
			if next < 0 {
				return
			}
			i += next + 1
			f.lines = append(f.lines, int32(i))
		}
	})
	line := sort.Search(len(f.lines), func(i int) bool { return int(f.lines[i]) > offset })
	return Pos{File: f.Name, Line: line, Col: offset - int(f.lines[line-1]) + 1}
}

// PosReader gives the places of many directives. Asked file by file and in the order of the text,
// it reads each text once and keeps nothing of it, where Directive.Pos keeps an index of the lines.
// The zero value is ready to use.
type PosReader struct {
	file         *File
	offset, line int // the end of the text that was read, and its line
	start        int // of that line
}

// Pos is where the directive begins.
func (r *PosReader) Pos(d *Directive) Pos {
	offset := d.start()
	if r.file != d.file || offset < r.offset {
		*r = PosReader{file: d.file, line: 1}
	}
	passed := d.file.Text[r.offset:offset]
	if n := strings.Count(passed, "\n"); n > 0 {
		r.line += n
		r.start = r.offset + strings.LastIndexByte(passed, '\n') + 1
	}
	r.offset = offset
	return Pos{File: d.file.Name, Line: r.line, Col: offset - r.start + 1}
}

func (f *File) errorf(offset int, format string, args ...any) *Error {
	p := f.pos(min(offset, len(f.Text)))
	return &Error{File: p.File, Line: p.Line, Col: p.Col, Msg: fmt.Sprintf(format, args...)}
}

func (d *Directive) errorf(format string, args ...any) *Error {
	return d.file.errorf(d.start(), format, args...)
}

// Errorf is an *Error at the directive.
func (d *Directive) Errorf(format string, args ...any) *Error { return d.errorf(format, args...) }
