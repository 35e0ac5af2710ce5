package web

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"

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

func startStream(rw http.ResponseWriter) *http.ResponseController {
	rw.Header().Set("Content-Type", "text/event-stream")
	rw.Header().Set("Cache-Control", "no-store")
	rw.WriteHeader(http.StatusOK)
	stream := http.NewResponseController(rw)
	_ = stream.Flush() // the client knows that it is connected before there is an event
	return stream
}
