package web

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/examples/server/platform"
)

// events is a stream of server-sent events: one "change" whenever anything has changed.
func (w *web) events(rw http.ResponseWriter, r *http.Request) {
	stream := startStream(rw)
	for seen := uint64(0); ; {
		next, err := w.Platform.Events.Wait(r.Context(), seen)
		if err != nil {
			return
		}
		seen = next
		if _, err := fmt.Fprintf(rw, "event: change\ndata: %d\n\n", seen); err != nil ||
			stream.Flush() != nil {
			return
		}
	}
}

// live is a stream of server-sent events for a page: a "sections" whenever sections have changed,
// with their new tags by name; at first with all. The page fetches the sections that it lacks.
func (w *web) live(rw http.ResponseWriter, r *http.Request) {
	q := parseQuery(r.URL.Query())
	stream := startStream(rw)
	sent := map[string]string{}
	for seen := uint64(0); ; {
		changed := map[string]string{}
		b, err := w.board(r.Context(), seen)
		if err != nil {
			return // the client asks again
		}
		for _, name := range sections {
			e, err := w.section(r.Context(), b, q, name)
			if err != nil {
				return
			}
			if e.tag != sent[name] {
				sent[name], changed[name] = e.tag, e.tag
			}
		}
		if len(changed) > 0 {
			data, _ := json.Marshal(changed) // a map of texts
			if _, err := fmt.Fprintf(rw, "event: sections\ndata: %s\n\n", data); err != nil ||
				stream.Flush() != nil {
				return
			}
		}
		if seen, err = w.pace.wait(r.Context(), seen); err != nil {
			return
		}
	}
}

// sectionPage is one section, at least as new as the last event of live.
func (w *web) sectionPage(rw http.ResponseWriter, r *http.Request) {
	name := r.PathValue("section")
	if !slices.Contains(sections, name) {
		w.showProblem(rw, r, fmt.Errorf("section %q: %w", name, platform.ErrNotFound))
		return
	}
	b, err := w.board(r.Context(), w.pace.newest())
	if err != nil {
		w.showProblem(rw, r, err)
		return
	}
	e, err := w.section(r.Context(), b, parseQuery(r.URL.Query()), name)
	if err != nil {
		w.showProblem(rw, r, err)
		return
	}
	e.serve(rw, r)
}

// buildLog is the log as text, or with Accept: text/event-stream as a stream that ends with the
// build.
func (w *web) buildLog(rw http.ResponseWriter, r *http.Request) {
	build, err := w.Platform.Build(r.PathValue("build"))
	if err != nil {
		w.fail(rw, r, err)
		return
	}
	if !strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
		rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
		// there is none while the build is queued
		if f, err := os.Open(w.Platform.BuildLog(build.ID)); err == nil {
			defer f.Close()
			_, _ = io.Copy(rw, f)
		}
		return
	}
	stream := startStream(rw)
	log := tail{path: w.Platform.BuildLog(build.ID)}
	defer log.close()
	for seen := uint64(0); ; {
		// before the log is read: the output of an ended build is there
		if build, err = w.Platform.Build(build.ID); err != nil {
			return
		}
		for _, line := range log.lines() {
			if _, err := fmt.Fprintf(rw, "event: line\ndata: %s\n\n", line); err != nil {
				return
			}
		}
		if build.State.Ended() {
			_, _ = fmt.Fprintf(rw, "event: end\ndata: %s\n\n", build.State)
			_ = stream.Flush()
			return
		}
		if stream.Flush() != nil {
			return
		}
		if seen, err = w.Platform.Events.Wait(r.Context(), seen); err != nil {
			return
		}
	}
}

// maxInstanceLog is how much of an instance's log is shown: its end.
const maxInstanceLog = 1 << 20

func (w *web) instanceLog(rw http.ResponseWriter, r *http.Request) {
	path, err := w.Platform.InstanceLog(r.PathValue("instance"))
	if err != nil {
		w.fail(rw, r, err)
		return
	}
	rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
	rw.Header().Set("Cache-Control", "no-store")
	f, err := os.Open(path)
	if err != nil {
		return // it has said nothing yet, or has just ended
	}
	defer f.Close()
	if _, err := f.Seek(-maxInstanceLog, io.SeekEnd); err != nil {
		_, _ = f.Seek(0, io.SeekStart) // it is shorter
	}
	_, _ = io.Copy(rw, f)
}

// tail reads a log that grows. Close it after use.
type tail struct {
	path string
	file *os.File // nil until there is one
	rest string   // the beginning of a line whose end is not there yet
}

// lines are the whole lines that were not returned before.
func (t *tail) lines() []string {
	if t.file == nil {
		var err error
		if t.file, err = os.Open(t.path); err != nil {
			t.file = nil
			return nil
		}
	}
	data, _ := io.ReadAll(t.file) // the part that is read is shown
	lines := strings.Split(t.rest+string(data), "\n")
	t.rest = lines[len(lines)-1]
	return lines[:len(lines)-1]
}

func (t *tail) close() {
	if t.file != nil {
		_ = t.file.Close()
	}
}

// logLines are the whole lines of the log.
func (w *web) logLines(build platform.Build) []string {
	log := tail{path: w.Platform.BuildLog(build.ID)}
	defer log.close()
	return log.lines()
}

func startStream(rw http.ResponseWriter) *http.ResponseController {
	rw.Header().Set("Content-Type", "text/event-stream")
	rw.Header().Set("Cache-Control", "no-store")
	rw.WriteHeader(http.StatusOK)
	stream := http.NewResponseController(rw)
	_ = stream.Flush() // the client knows that it is connected before there is an event
	return stream
}
