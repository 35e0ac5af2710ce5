package web

import (
	"fmt"
	"io"
	"net/http"
	"os"
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
		if _, err := fmt.Fprintf(rw, "event: change\ndata: %d\n\n", seen); err != nil || stream.Flush() != nil {
			return
		}
	}
}

// buildLog is the log as text, or with Accept: text/event-stream as a stream that ends with the build.
func (w *web) buildLog(rw http.ResponseWriter, r *http.Request) {
	build, err := w.Platform.Build(r.PathValue("build"))
	if err != nil {
		w.fail(rw, r, err)
		return
	}
	if !strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
		rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if f, err := os.Open(w.Platform.BuildLog(build.ID)); err == nil { // there is none while the build is queued
			defer f.Close()
			_, _ = io.Copy(rw, f)
		}
		return
	}
	stream := startStream(rw)
	sent := 0
	for seen := uint64(0); ; {
		if build, err = w.Platform.Build(build.ID); err != nil { // before the log is read: what an ended build wrote is there
			return
		}
		lines := w.logLines(build)
		for ; sent < len(lines); sent++ {
			if _, err := fmt.Fprintf(rw, "event: line\ndata: %s\n\n", lines[sent]); err != nil {
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

// logLines are the whole lines of the log.
func (w *web) logLines(build platform.Build) []string {
	data, err := os.ReadFile(w.Platform.BuildLog(build.ID))
	if err != nil {
		return nil
	}
	lines := strings.Split(string(data), "\n")
	return lines[:len(lines)-1]
}

func startStream(rw http.ResponseWriter) *http.ResponseController {
	rw.Header().Set("Content-Type", "text/event-stream")
	rw.Header().Set("Cache-Control", "no-store")
	rw.WriteHeader(http.StatusOK)
	stream := http.NewResponseController(rw)
	_ = stream.Flush() // the client knows that it is connected before there is anything to tell
	return stream
}
