package rollout

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/sluice-deploy/sluice/promote"
)

// EventKind is the kind of an Event.
type EventKind string

// The kinds of events.
const (
	// an instance is being started
	EventStarting EventKind = "starting"
	// an instance is ready
	EventReady EventKind = "ready"
	// the routes of the target are verified: Detail names the instances that serve
	EventRouted EventKind = "routed"
	// an instance is out of the routes and has no request in flight any more
	EventDrained EventKind = "drained"
	// the drain did not end in time: Err names the requests that are left
	EventCut EventKind = "cut"
	// an instance has ended
	EventEnded EventKind = "ended"
	// the rollout waits for Continue
	EventPaused EventKind = "paused"
	// the rollout goes on
	EventContinued EventKind = "continued"
	// the target is as asked
	EventDone EventKind = "done"
	// the rollout stopped: Err says why
	EventStopped EventKind = "stopped"
	// a share of the requests was switched: Detail holds the share
	EventSwitched EventKind = "switched"
	// the check of a batch or a step has passed: Detail names the check
	EventChecked EventKind = "checked"
	// a step did not pass, and the share goes back: Err says why
	EventBack EventKind = "back"
)

// Event is one thing that happened in a rollout.
type Event struct {
	Time       time.Time      `json:"time"`
	Target     promote.Target `json:"target"`
	Generation uint64         `json:"generation"`
	Kind       EventKind      `json:"kind"`
	// Instance is empty for an event of the whole target.
	Instance string `json:"instance,omitempty"`
	Detail   string `json:"detail,omitempty"`
	// Error is the text of an error.
	Error string `json:"error,omitempty"`
}

// Progress returns the event for the journal, and reports whether it belongs there: pauses, checks,
// shares, the way back and a stop do; what happens to one instance does not. Config.Events may give
// it to promote.Promoter.Progress.
func (e Event) Progress() (promote.Progress, bool) {
	switch e.Kind {
	case EventPaused, EventContinued, EventChecked, EventSwitched, EventBack, EventStopped:
	default:
		return promote.Progress{}, false
	}
	detail := e.Detail
	if e.Instance != "" {
		detail = strings.TrimSpace(detail + " " + e.Instance)
	}
	return promote.Progress{Target: e.Target, Generation: e.Generation, Op: promote.Op(e.Kind),
		Detail: detail, Error: e.Error}, true
}

// log writes the event as one line.
func (e Event) log(ctx context.Context, to *slog.Logger) {
	attrs := []slog.Attr{slog.String("target", e.Target.String()),
		slog.Uint64("generation", e.Generation)}
	for _, a := range []struct{ key, value string }{{"instance", e.Instance},
		{"detail", e.Detail}, {"err", e.Error}} {
		if a.value != "" {
			attrs = append(attrs, slog.String(a.key, a.value))
		}
	}
	level := slog.LevelInfo
	if e.Error != "" {
		level = slog.LevelWarn
	}
	to.LogAttrs(ctx, level, "rollout "+string(e.Kind), attrs...)
}

func (r *Rollout) event(ctx context.Context, rec Record, kind EventKind, instance, detail string,
	err error) {
	e := Event{Time: r.cfg.Now().UTC(), Target: rec.Target, Generation: rec.Seen, Kind: kind,
		Instance: instance, Detail: detail}
	if err != nil {
		e.Error = err.Error()
	}
	r.cfg.Events(e)
	e.log(ctx, r.cfg.Logger)
}
