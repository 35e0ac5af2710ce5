package viphttp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/sluice-deploy/sluice/vip"
)

// watch streams events. Without a revision to resume from it begins now. The first event is "hello" with the revision that
// it begins at; when what came since is not kept it is "reset", and the client lists again.
func (h *handler) watch(w http.ResponseWriter, r *http.Request) {
	from := h.a.Revision()
	text := r.Header.Get("Last-Event-ID")
	if q := r.URL.Query().Get("from"); text == "" {
		text = q
	}
	if text != "" {
		rev, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			problem(w, fmt.Errorf("%w: revision %q: want the id of an event", vip.ErrInvalid, text))
			return
		}
		from = rev
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no")
	s := stream{w, http.NewResponseController(w)}
	if err := s.send("hello", from, map[string]string{"revision": strconv.FormatUint(from, 10)}); err != nil {
		return
	}
	for {
		ctx, cancel := context.WithTimeout(r.Context(), h.options.KeepAlive)
		events, err := h.a.Watch(ctx, from)
		cancel()
		switch {
		case r.Context().Err() != nil:
			return
		case errors.Is(err, vip.ErrCompacted):
			from = h.a.Revision()
			err = s.send("reset", from, map[string]string{"revision": strconv.FormatUint(from, 10), "detail": err.Error()})
		case err != nil: // nothing happened for a while
			err = s.comment("alive at " + time.Now().UTC().Format(time.RFC3339))
		}
		for _, e := range events {
			if err == nil {
				err = s.send(string(e.Kind), e.Revision, e)
				from = e.Revision
			}
		}
		if err != nil {
			return
		}
	}
}

type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

func (s stream) send(kind string, revision uint64, data any) error {
	body, err := json.Marshal(data)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(s.w, "event: %s\nid: %d\ndata: %s\n\n", kind, revision, body); err != nil {
		return err
	}
	return s.control.Flush()
}

func (s stream) comment(text string) error {
	if _, err := fmt.Fprintf(s.w, ": %s\n\n", text); err != nil {
		return err
	}
	return s.control.Flush()
}
