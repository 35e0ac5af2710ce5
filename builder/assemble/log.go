package assemble

import (
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/sluice-deploy/sluice/builder"
)

// progress sends the events of a build to the request. It shows instructions as the Dockerfile has
// them, so that the values of build arguments stay out of it.
type progress struct {
	request *builder.Request
	steps   int
	at      int
}

func (p *progress) step(line int, code string) {
	p.at++
	p.request.Emit(builder.Event{Kind: builder.EventStep, Step: p.at, Steps: p.steps, Line: line,
		Text: code})
}

func (p *progress) note(format string, args ...any) {
	p.request.Emit(builder.Event{Kind: builder.EventDetail, Text: fmt.Sprintf(format, args...)})
}

func (p *progress) layer(entries map[string]entry) {
	files, size := 0, int64(0)
	for _, e := range entries {
		if e.kind != isDir {
			files++
			size += e.size
		}
	}
	text := plural(len(entries)-files, "directory")
	if files > 0 {
		text = plural(files, "file") + ", " + bytesOf(size)
	}
	p.request.Emit(builder.Event{Kind: builder.EventLayer, Text: text, Bytes: size})
}

func (p *progress) pushed(repository string, r builder.Result) {
	p.request.Emit(builder.Event{Kind: builder.EventPush, Bytes: r.Uploaded,
		Text: fmt.Sprintf("push to %s: %s sent, %s there already", repository, bytesOf(r.Uploaded),
			bytesOf(r.Reused))})
}

func (p *progress) done(r builder.Result, tag *name.Tag) {
	if tag != nil {
		p.request.Emit(builder.Event{Kind: builder.EventTag, Text: "tag " + tag.TagStr()})
	}
	p.request.Emit(builder.Event{Kind: builder.EventDone, Text: "digest " + r.Digest})
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if stem, ok := strings.CutSuffix(noun, "y"); ok {
		return fmt.Sprintf("%d %sies", n, stem)
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
