package viphttp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/sluice-deploy/sluice/vip"
)

// A list is answered in pages, and a page is read and written in parts, so that neither holds the
// whole in memory.
const (
	defaultPage = 1000
	largestPage = 100_000
	part        = 500 // leases read at once
)

// list answers with a page of the leases that the request selects: {"leases": […], "next":
// "10.0.3.7"}, next only where more may follow. Once the first lease is written, a fault can only
// cut the answer off: then it is no JSON.
func (h *handler) list(w http.ResponseWriter, r *http.Request) error {
	q, limit, err := h.paged(r)
	if err != nil {
		h.problem(w, err)
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.Method == http.MethodHead {
		return nil
	}
	out := stream{w, http.NewResponseController(w), h.cfg.WriteTimeout}
	text := bufio.NewWriterSize(out, writeSize)
	_, _ = text.WriteString(`{"leases":[`) // its errors are those of the last Flush
	for written := 0; ; {
		q.Limit = min(part, limit-written)
		found := h.a.List(q)
		for i := range found {
			if written++; written > 1 {
				_ = text.WriteByte(',')
			}
			lease, err := json.Marshal(&found[i])
			if err != nil {
				return err
			}
			_, _ = text.Write(lease)
		}
		if len(found) < q.Limit {
			_, _ = text.WriteString("]}\n")
			return text.Flush()
		}
		q.After = found[len(found)-1].Addr
		if written == limit {
			_, _ = fmt.Fprintf(text, `],"next":%q}`+"\n", q.After)
			return text.Flush()
		}
		if _, err := text.Write(nil); err != nil || r.Context().Err() != nil { // the client is gone
			return errors.Join(err, context.Cause(r.Context()))
		}
	}
}

// paged reads the query of a list, and how many leases a page has.
func (h *handler) paged(r *http.Request) (q vip.Query, limit int, err error) {
	params, err := h.admit(r, append([]string{"limit", "after"}, selectors...))
	if err != nil {
		return q, 0, err
	}
	if q, err = params.query(); err != nil {
		return q, 0, err
	}
	if text := params.get("after"); text != "" {
		if q.After, err = netip.ParseAddr(text); err != nil {
			return q, 0, fmt.Errorf("parameter after: %w: %w", err, vip.ErrInvalid)
		}
	}
	limit = defaultPage
	if text := params.get("limit"); text != "" {
		limit, err = strconv.Atoi(text)
		if err != nil || limit < 1 || limit > largestPage {
			return q, 0, fmt.Errorf("parameter limit: %.64q: want 1 to %d: %w", text, largestPage,
				vip.ErrInvalid)
		}
	}
	return q, limit, nil
}

// stream writes to a client that reads. One that does not read for timeout is cut off.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
}

// Write implements io.Writer, and sends text at once.
func (s stream) Write(text []byte) (int, error) {
	// a ResponseWriter without a connection, as of a test, has no deadlines
	err := s.control.SetWriteDeadline(time.Now().Add(s.timeout))
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	n, err := s.w.Write(text)
	if err != nil {
		return n, err
	}
	if err := s.control.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return n, err
	}
	return n, nil
}
