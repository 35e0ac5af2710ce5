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
// with the revision that it begins at; when the events since the revision are not kept it is
// "reset", and the client lists again. "pools" says that SetPools has changed the pools.
func (h *handler) watch(w http.ResponseWriter, r *http.Request) error {
	after, err := h.from(r)
	if err != nil {
		h.problem(w, err)
		return err
	}
	// before "hello": a client that reads the pools after it hears of each later change
	_, pools, err := h.a.WatchPools(r.Context(), 0)
	if err != nil {
		return nil // the client is gone
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no")
	s := stream{w, http.NewResponseController(w), h.cfg.WriteTimeout}
	if err := s.send("hello", after, map[string]string{"revision": strconv.FormatUint(after,
		10)}); err != nil {
		return err
	}
	for {
		ctx, cancel := context.WithTimeout(r.Context(), h.cfg.KeepAlive)
		newer := make(chan uint64, 1) // does not block when this loop has gone on
		go func() {
			_, now, err := h.a.WatchPools(ctx, pools)
			if err != nil {
				now = pools
			}
			newer <- now
			cancel()
		}()
		events, err := h.a.Watch(ctx, after)
		cancel()
		now := <-newer
		switch {
		case r.Context().Err() != nil:
			return nil
		case errors.Is(err, vip.ErrCompacted):
			after = h.a.Revision()
			err = s.send("reset", after, map[string]string{"revision": strconv.FormatUint(after,
				10), "detail": err.Error()})
		case err != nil && now != pools:
			err = nil
		case err != nil: // nothing happened for a while
			err = s.comment("alive at " + h.cfg.Now().UTC().Format(time.RFC3339))
		}
		for _, e := range events {
			if err == nil {
				err = s.send(string(e.Kind), e.Revision, e)
				after = e.Revision
			}
		}
		if err == nil && now != pools {
			pools = now
			err = s.send("pools", after, map[string]string{"revision": strconv.FormatUint(after,
				10)})
		}
		if err != nil {
			return err
		}
	}
}

// from is the revision that a stream begins after.
func (h *handler) from(r *http.Request) (uint64, error) {
	params, err := h.admit(r, []string{"after"})
	if err != nil {
		return 0, err
	}
	text := r.Header.Get("Last-Event-ID")
	if text == "" {
		text = params.get("after")
	}
	if text == "" {
		return h.a.Revision(), nil
	}
	rev, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("revision %.64q: want the id of an event: %w", text, vip.ErrInvalid)
	}
	return rev, nil
}

// send writes one event. A client that is cut off resumes after the last that it has read whole.
func (s stream) send(kind string, revision uint64, data any) error {
	var body []byte
	var err error
	if shared, ok := data.(vip.Event); ok { // encoded once for all streams
		body, err = shared.MarshalJSON()
	} else {
		body, err = json.Marshal(data)
	}
	if err != nil {
		return err
	}
	_, err = s.Write(fmt.Appendf(nil, "event: %s\nid: %d\ndata: %s\n\n", kind, revision, body))
	return err
}

func (s stream) comment(text string) error {
	_, err := s.Write([]byte(": " + text + "\n\n"))
	return err
}
