package web

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/sluice-deploy/sluice/examples/server/platform"
)

// buildLog is the log as text, or with Accept: text/event-stream as a stream that ends with the
// build.
func (w *web) buildLog(rw http.ResponseWriter, r *http.Request) {
	id := r.PathValue("build")
	if strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
		w.followBuildLog(rw, r, id)
		return
	}
	part, err := w.Platform.BuildLog(r.Context(), id, 0)
	if err != nil {
		w.fail(rw, r, err)
		return
	}
	rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
	for len(part.Data) > 0 {
		if _, err := rw.Write(part.Data); err != nil || part.Ended {
			return
		}
		if part, err = w.Platform.BuildLog(r.Context(), id, part.Next); err != nil {
			panic(http.ErrAbortHandler) // the client sees that the text is cut off
		}
	}
}

// followBuildLog sends the lines of a log as events, and at the end the state of the build.
func (w *web) followBuildLog(rw http.ResponseWriter, r *http.Request, id string) {
	ctx, p := r.Context(), w.Platform
	if _, err := p.Build(ctx, id); err != nil {
		w.fail(rw, r, err)
		return
	}
	stream := startStream(rw)
	var cut lineCutter
	for offset, ended := int64(0), false; !ended; {
		part, err := p.FollowBuildLog(ctx, id, offset)
		if err != nil {
			return // the client asks again
		}
		for _, line := range cut.add(part.Data) {
			if _, err := fmt.Fprintf(rw, "event: line\ndata: %s\n\n", line); err != nil {
				return
			}
		}
		if stream.Flush() != nil {
			return
		}
		offset, ended = part.Next, part.Ended
	}
	if build, err := p.Build(ctx, id); err == nil {
		_, _ = fmt.Fprintf(rw, "event: end\ndata: %s\n\n", build.State)
		_ = stream.Flush()
	}
}

// logLines are the whole lines of the log as it is now.
func (w *web) logLines(ctx context.Context, build platform.Build) (all []string, err error) {
	var cut lineCutter
	for offset := int64(0); ; {
		part, err := w.Platform.BuildLog(ctx, build.ID, offset)
		if err != nil {
			return nil, err
		}
		all = append(all, cut.add(part.Data)...)
		if offset = part.Next; part.Ended || len(part.Data) == 0 {
			return all, nil
		}
	}
}

// lineCutter cuts a log that comes in parts into lines.
type lineCutter struct{ rest string } // the beginning of a line whose end is not there yet

// add returns the lines that data ends.
func (l *lineCutter) add(data []byte) []string {
	found := strings.Split(l.rest+string(data), "\n")
	l.rest = found[len(found)-1]
	return found[:len(found)-1]
}
