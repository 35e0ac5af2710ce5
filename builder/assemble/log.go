package assemble

import (
	"fmt"
	"io"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/sluice-deploy/sluice/builder"
)

// log writes what a person reads while a build runs. It shows instructions as the Dockerfile has them, so that the values of
// build arguments stay out of it.
type log struct {
	w     io.Writer
	steps int
	at    int
}

func (l *log) line(format string, args ...any) {
	if l.w != nil {
		fmt.Fprintf(l.w, format+"\n", args...)
	}
}

func (l *log) step(code string) {
	l.at++
	l.line("[%d/%d] %s", l.at, l.steps, code)
}

func (l *log) note(format string, args ...any) { l.line("      "+format, args...) }

func (l *log) files(entries map[string]entry) {
	files, size := 0, int64(0)
	for _, e := range entries {
		if e.kind != isDir {
			files++
			size += e.size
		}
	}
	if files > 0 {
		l.note("%s, %s", plural(files, "file"), bytesOf(size))
	}
}

func (l *log) pushed(repository string, r builder.Result) {
	l.line("push to %s: %s sent, %s there already", repository, bytesOf(r.Uploaded), bytesOf(r.Reused))
}

func (l *log) done(r builder.Result, tag *name.Tag) {
	if tag != nil {
		l.line("tag %s", tag.TagStr())
	}
	l.line("digest %s", r.Digest)
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func bytesOf(n int64) string {
	switch {
	case n < 1000:
		return fmt.Sprintf("%d B", n)
	case n < 1_000_000:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	case n < 1_000_000_000:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.1f GB", float64(n)/1e9)
}
