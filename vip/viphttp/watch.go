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

// watch streams events. Without a revision to resume from it begins now. The first event is "hello"
// with the revision that it begins at; when what came since is not kept it is "reset", and the
// client lists again.
func (h *handler) watch(w http.ResponseWriter, r *http.Request) error {
	after := h.a.Revision()
	text := r.Header.Get("Last-Event-ID")
	if q := r.URL.Query().Get("after"); text == "" {
		text = q
	}
	if text != "" {
		rev, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			err = fmt.Errorf("revision %.64q: want the id of an event: %w", text, vip.ErrInvalid)
			problem(w, err)
			return err
		}
		after = rev
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no")
	s := stream{w, http.NewResponseController(w)}
	if err := s.send("hello", after, map[string]string{"revision": strconv.FormatUint(after, 10)}); err != nil {
		return err
	}
	for {
		ctx, cancel := context.WithTimeout(r.Context(), h.cfg.KeepAlive)
		events, err := h.a.Watch(ctx, after)
		cancel()
		switch {
		case r.Context().Err() != nil:
			return nil
		case errors.Is(err, vip.ErrCompacted):
			after = h.a.Revision()
			err = s.send("reset", after, map[string]string{"revision": strconv.FormatUint(after, 10), "detail": err.Error()})
		case err != nil: // nothing happened for a while
			err = s.comment("alive at " + h.cfg.Now().UTC().Format(time.RFC3339))
		}
		for _, e := range events {
			if err == nil {
				err = s.send(string(e.Kind), e.Revision, e)
				after = e.Revision
			}
		}
		if err != nil {
			return err
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
