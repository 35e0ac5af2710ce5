package web

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"
)

// probe remembers for a moment whether the platform serves: clients without a token may ask, as
// often as they like.
type probe struct {
	mu  sync.Mutex
	at  time.Time
	err error
}

// probeAge is how long an answer holds.
const probeAge = time.Second

// livez says that the process answers requests. A supervisor that gets no answer starts the server
// again.
func (w *web) livez(rw http.ResponseWriter, _ *http.Request) { plain(rw, http.StatusOK, "ok") }

// readyz reports whether VIPs answer. It has the page's data loaded, so that the first person after
// a start need not wait for the journal to be read. The details of a problem are for clients with a
// token: GET /api/v1/health.
func (w *web) readyz(rw http.ResponseWriter, r *http.Request) {
	if w.serves(r.Context()) != nil {
		plain(rw, http.StatusServiceUnavailable, "not ready")
		return
	}
	plain(rw, http.StatusOK, "ok")
}

func (w *web) serves(ctx context.Context) error {
	w.probe.mu.Lock()
	defer w.probe.mu.Unlock()
	if time.Since(w.probe.at) < probeAge {
		return w.probe.err
	}
	// the answer is for others, too
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	w.probe.err = w.Platform.Serves(asking)
	if w.probe.err == nil && w.boards.empty() {
		_, w.probe.err = w.board(asking, 0)
	}
	w.probe.at = time.Now()
	return w.probe.err
}

func plain(rw http.ResponseWriter, status int, text string) {
	rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
	rw.Header().Set("Cache-Control", "no-store")
	rw.WriteHeader(status)
	_, _ = io.WriteString(rw, text+"\n")
}
