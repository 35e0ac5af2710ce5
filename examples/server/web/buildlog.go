package web

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/sluice-deploy/sluice/builder/builds"
	"github.com/sluice-deploy/sluice/examples/server/platform"
)

// submitBuild answers as soon as the build is recorded, whether the client prefers that (RFC 7240)
// or not.
func (w *web) submitBuild(rw http.ResponseWriter, r *http.Request) {
	var in platform.BuildRequest
	err := decode(rw, r, &in)
	var build platform.Build
	if err == nil {
		build, err = w.Platform.SubmitBuild(r.Context(), in)
	}
	if err != nil {
		w.fail(rw, r, err)
		return
	}
	rw.Header().Set("Location", "/api/v1/builds/"+build.ID)
	if prefersAsync(r) {
		rw.Header().Set("Preference-Applied", "respond-async")
	}
	writeJSON(rw, http.StatusAccepted, build)
}

// follows reports whether the client asks for server-sent events.
func follows(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "text/event-stream")
}

// from is where to go on: the id of the last event that a client of a stream had, which it sends
// when it connects again, else a query parameter; 0 without either.
func from(r *http.Request, parameter string) (int64, error) {
	text := r.FormValue(parameter)
	if follows(r) {
		text = cmp.Or(r.Header.Get("Last-Event-ID"), text)
	}
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s: %.32q: want a number of 0 or more: %w", parameter, text,
			platform.ErrInvalid)
	}
	return n, nil
}

// buildEvents are the events of a build after a number, or with Accept: text/event-stream a stream
// of them that ends with the build.
func (w *web) buildEvents(rw http.ResponseWriter, r *http.Request) {
	id, ctx := r.PathValue("build"), r.Context()
	after, err := from(r, "after")
	var events []platform.BuildEvent
	if err == nil {
		events, err = w.Platform.BuildEvents(ctx, id, uint64(after))
	}
	if err != nil {
		w.fail(rw, r, err)
		return
	}
	if !follows(r) {
		writeJSON(rw, http.StatusOK, events)
		return
	}
	stream := startStream(rw)
	for seen := uint64(after); ; {
		events, err := w.Platform.FollowBuildEvents(ctx, id, seen)
		if err != nil || len(events) == 0 {
			return // the build has ended, or the client has gone
		}
		for _, e := range events {
			data, _ := json.Marshal(e) // of texts and numbers: never fails
			if _, err := fmt.Fprintf(rw, "event: %s\ndata: %s\nid: %d\n\n", e.Kind, data,
				e.Seq); err != nil {
				return
			}
			seen = e.Seq
		}
		if stream.Flush() != nil {
			return
		}
	}
}

// The headers of a log say, once the build has ended, how much of the log there is.
const (
	verdictHeader = "Sluice-Log-Verdict" // complete, truncated or gap
	lostHeader    = "Sluice-Log-Lost"    // bytes that the build wrote and nobody stored
)

// buildLog is the log from an offset on, as text, or with Accept: text/event-stream as a stream
// that ends with the build.
func (w *web) buildLog(rw http.ResponseWriter, r *http.Request) {
	id, ctx := r.PathValue("build"), r.Context()
	offset, err := from(r, "offset")
	var part builds.LogPart
	if err == nil {
		part, err = w.Platform.BuildLog(ctx, id, offset)
	}
	if err != nil {
		w.fail(rw, r, err)
		return
	}
	if follows(r) {
		w.followBuildLog(rw, r, id, offset)
		return
	}
	rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
	rw.Header().Set("Cache-Control", "no-store")
	if part.State.Verdict != "" {
		rw.Header().Set(verdictHeader, string(part.State.Verdict))
		rw.Header().Set(lostHeader, strconv.FormatInt(part.State.Lost, 10))
	}
	for len(part.Data) > 0 {
		if _, err := rw.Write(part.Data); err != nil || part.Ended {
			return
		}
		if part, err = w.Platform.BuildLog(ctx, id, part.Next); err != nil {
			panic(http.ErrAbortHandler) // the client sees that the text is cut off
		}
	}
}

// followBuildLog sends the lines of a log as events, each with the offset behind it as its id, and
// at the end the verdict on the log and the state of the build.
func (w *web) followBuildLog(rw http.ResponseWriter, r *http.Request, id string, offset int64) {
	ctx, p := r.Context(), w.Platform
	stream := startStream(rw)
	var cut lineCutter
	var state builds.LogState
	for at, ended := offset, false; !ended; {
		part, err := p.FollowBuildLog(ctx, id, at)
		if err != nil {
			return // the client asks again
		}
		for _, line := range cut.add(part.Data) {
			offset += int64(len(line)) + 1
			// a carriage return would end the line of the stream
			line = strings.ReplaceAll(line, "\r", "")
			if _, err := fmt.Fprintf(rw, "event: line\ndata: %s\nid: %d\n\n", line,
				offset); err != nil {
				return
			}
		}
		if stream.Flush() != nil {
			return
		}
		at, ended, state = part.Next, part.Ended, part.State
	}
	build, err := p.Build(ctx, id)
	if err != nil {
		return
	}
	data, _ := json.Marshal(state) // of numbers and a word: never fails
	_, _ = fmt.Fprintf(rw, "event: verdict\ndata: %s\n\nevent: end\ndata: %s\n\n", data,
		build.State)
	_ = stream.Flush()
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
