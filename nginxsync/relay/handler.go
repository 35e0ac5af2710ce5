package relay

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sluice-deploy/sluice/internal/httpproblem"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check"
	"github.com/sluice-deploy/sluice/nginxsync/internal/retry"
)

// HandlerConfig configures a Handler. Source and Token are required.
type HandlerConfig struct {
	// Source supplies the snapshots.
	Source nginxsync.Source
	// Token is the word that followers send as "Authorization: Bearer TOKEN": 16 bytes or more,
	// without spaces.
	Token string
	// Beat is how often a follower gets a sign of life when nothing changes. The default is 15
	// seconds.
	Beat time.Duration
	// WriteTimeout bounds each write to a follower: one that does not read loses its connection.
	// The default is 30 seconds.
	WriteTimeout time.Duration
	// Followers is how many may follow at one time; more get 503. The default is 1000.
	Followers int
	// Logger logs the errors of the source. The default discards.
	Logger *slog.Logger
	// Observe is called with "follow" when a follower leaves, how long it was there, and why. It
	// must return soon and be safe for concurrent use. Nil means that there is none.
	Observe func(op string, took time.Duration, err error)
}

// Handler is an http.Handler that followers read the snapshots of a source from: see the package.
// Run must be running. It is safe for concurrent use.
type Handler struct {
	cfg    HandlerConfig
	token  [sha256.Size]byte
	stream string        // names the revisions
	seats  chan struct{} // one for each follower

	mu       sync.Mutex
	ledger   *ledger
	revision uint64        // of the last change; 0 before the first snapshot
	changes  []change      // the latest
	bytes    int           // of changes
	trouble  string        // the error of the source; empty when it was heard since
	changed  chan struct{} // closed with each revision and each trouble
	ended    bool          // Run has
}

// change has the lines that lead to a revision from the one before.
type change struct {
	revision uint64
	text     string // of the lines, the end among them
}

// The changes that are kept for followers which were away, or which are slow.
const (
	keepChanges = 4096
	keepBytes   = 16 << 20
)

// leastToken is the least length of a token, in bytes.
const leastToken = 16

// NewHandler makes a handler. It does not ask the source yet. A configuration that is not valid is
// an error with all its problems and nginxsync.ErrInvalid in its chain.
func NewHandler(cfg HandlerConfig) (*Handler, error) {
	p := check.Problems{Package: "relay", Sentinel: nginxsync.ErrInvalid}
	p.Require("Source", cfg.Source != nil)
	if len(cfg.Token) < leastToken || strings.ContainsAny(cfg.Token, " \t\r\n") {
		p.Add("Token", "%d bytes: want at least %d, without spaces", len(cfg.Token), leastToken)
	}
	p.Duration("Beat", &cfg.Beat, 15*time.Second)
	p.Duration("WriteTimeout", &cfg.WriteTimeout, 30*time.Second)
	check.Number(&p, "Followers", &cfg.Followers, 1000)
	if err := p.Err(); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Observe == nil {
		cfg.Observe = func(string, time.Duration, error) {}
	}
	var id [8]byte
	_, _ = rand.Read(id[:]) // does not fail
	return &Handler{cfg: cfg, token: sha256.Sum256([]byte(cfg.Token)),
		stream: hex.EncodeToString(id[:]), seats: make(chan struct{}, cfg.Followers),
		ledger: newLedger(), changed: make(chan struct{})}, nil
}

// Run follows the source until ctx ends, and returns its cause. The followers lose their
// connections then. Run must not be called twice.
func (h *Handler) Run(ctx context.Context) error {
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.ended = true
		h.tell()
	}()
	var after uint64
	tries := retry.Backoff{}
	for {
		snapshot, revision, err := h.cfg.Source.Watch(ctx, after)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil {
			after, tries = revision, retry.Backoff{}
			h.take(snapshot)
			continue
		}
		h.silent(err)
		if err := retry.Sleep(ctx, tries.Next(50*time.Millisecond, 5*time.Second)); err != nil {
			return err
		}
	}
}

// tell makes the followers look again. The caller holds mu.
func (h *Handler) tell() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// take makes a revision of a snapshot that changes anything.
func (h *Handler) take(s nginxsync.Snapshot) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.trouble != "" {
		h.trouble = ""
		h.tell()
	}
	lines := h.ledger.take(s)
	if len(lines) == 0 && h.revision > 0 {
		return
	}
	h.revision++
	c := change{h.revision, strings.Join(append(lines, h.end()), "\n")}
	h.changes, h.bytes = append(h.changes, c), h.bytes+len(c.text)
	for len(h.changes) > 1 && (len(h.changes) > keepChanges || h.bytes > keepBytes) {
		h.bytes -= len(h.changes[0].text)
		h.changes = h.changes[1:]
	}
	h.tell()
}

// end is the line that ends a transfer. The caller holds mu.
func (h *Handler) end() string {
	return string(encode(line{End: &end{h.revision, h.ledger.sum}}))
}

// silent passes on that the source is not heard.
func (h *Handler) silent(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.trouble != err.Error() {
		h.trouble = err.Error()
		h.cfg.Logger.Warn("source", "err", err)
		h.tell()
	}
}

var (
	errToken = errors.New("unauthenticated")
	errFull  = errors.New("unavailable")

	rules = httpproblem.Rules{
		{Err: nginxsync.ErrInvalid, Kind: httpproblem.Invalid},
		{Err: errToken, Kind: httpproblem.Unauthenticated},
		{Err: errFull, Kind: httpproblem.Unavailable},
	}
)

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	at, err := h.admit(w, r)
	if err != nil {
		httpproblem.Write(w, rules.Problem(err))
		return
	}
	defer func() { <-h.seats }()
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	start := time.Now()
	err = h.serve(r.Context(), w, at)
	h.cfg.Observe("follow", time.Since(start), err)
}

// admit checks a request and takes a seat, and returns where the follower is: 0 for nowhere.
func (h *Handler) admit(w http.ResponseWriter, r *http.Request) (after uint64, err error) {
	got, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	sent := sha256.Sum256([]byte(got)) // so that the time says nothing of the length
	if !ok || subtle.ConstantTimeCompare(sent[:], h.token[:]) != 1 {
		w.Header().Set("WWW-Authenticate", "Bearer")
		return 0, fmt.Errorf("want the relay's token: %w", errToken)
	}
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		return 0, fmt.Errorf("method %.16q: want GET: %w", r.Method, nginxsync.ErrInvalid)
	}
	query := r.URL.Query()
	if text := query.Get("after"); text != "" && query.Get("stream") == h.stream {
		if after, err = strconv.ParseUint(text, 10, 64); err != nil {
			return 0, fmt.Errorf("after %.32q: want a revision: %w", text, nginxsync.ErrInvalid)
		}
	}
	select {
	case h.seats <- struct{}{}:
		return after, nil
	default:
		return 0, fmt.Errorf("%d follow: want less: %w", cap(h.seats), errFull)
	}
}

// serve writes to a follower until it leaves.
func (h *Handler) serve(ctx context.Context, w http.ResponseWriter, after uint64) error {
	control := http.NewResponseController(w)
	write := func(texts ...string) error {
		for some := range slices.Chunk(texts, 256) {
			if err := control.SetWriteDeadline(time.Now().Add(h.cfg.WriteTimeout)); err != nil &&
				!errors.Is(err, http.ErrNotSupported) {
				return err
			}
			if _, err := io.WriteString(w, strings.Join(some, "\n")+"\n"); err != nil {
				return err
			}
		}
		return control.Flush()
	}
	beat := time.NewTicker(h.cfg.Beat)
	defer beat.Stop()
	f := follower{at: after}
	// A server's limit of the time to read a request would end the stream.
	if err := control.SetReadDeadline(time.Time{}); err != nil &&
		!errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if err := write(""); err != nil { // the status of the answer tells that the token is right
		return err
	}
	for {
		h.mu.Lock()
		texts, changed, ended := h.next(&f), h.changed, h.ended
		h.mu.Unlock()
		if ended {
			return errors.New("the relay ends")
		}
		if len(texts) > 0 {
			if err := write(texts...); err != nil {
				return err
			}
			continue
		}
		select {
		case <-changed:
		case <-beat.C:
			if err := write(""); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// follower is how far a follower is.
type follower struct {
	greeted bool
	at      uint64 // its revision
	told    string // the trouble that it knows
}

// next are the texts that a follower does not have yet. The caller holds mu.
func (h *Handler) next(f *follower) (texts []string) {
	if f.told != h.trouble {
		f.told = h.trouble
		texts = append(texts, string(encode(line{Silent: &f.told})))
	}
	if h.revision == 0 {
		return texts
	}
	kept := f.at == h.revision || f.at > 0 && f.at < h.revision &&
		f.at+1 >= h.changes[0].revision
	if !kept {
		f.at = 0
	}
	if !kept || !f.greeted {
		f.greeted = true
		texts = append(texts, string(encode(line{Hello: &hello{h.stream, f.at}})))
	}
	switch {
	case !kept:
		texts = append(append(texts, h.ledger.all()...), h.end())
	case f.at < h.revision:
		for _, c := range h.changes[f.at+1-h.changes[0].revision:] {
			texts = append(texts, c.text)
		}
	}
	f.at = h.revision
	return texts
}
