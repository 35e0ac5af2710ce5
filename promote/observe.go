package promote

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
)

// watched returns the function to defer that reports an operation to Config.Observe.
func (p *Promoter) watched(op string, err *error) func() {
	if p.observe == nil {
		return func() {}
	}
	start := p.now()
	return func() { p.observe(op, p.now().Sub(start), *err) }
}

// put asks the deployer for d.
func (p *Promoter) put(ctx context.Context, d Deployment) (err error) {
	defer p.watched("deployer.deploy", &err)()
	return p.deployer.Deploy(ctx, d)
}

// remove asks the deployer to end d's target.
func (p *Promoter) remove(ctx context.Context, d Deployment) (err error) {
	defer p.watched("deployer.remove", &err)()
	return p.deployer.Remove(ctx, d)
}

func (p *Promoter) check(ctx context.Context, gate Gate, c Change) (err error) {
	defer p.watched("gate."+gate.Name(), &err)()
	return gate.Check(ctx, c)
}

// logEntry logs an entry that this Promoter has appended.
func (p *Promoter) logEntry(ctx context.Context, e Entry) {
	level := slog.LevelInfo
	if e.Kind == Restoring || e.Kind == Failed {
		level = slog.LevelWarn
	}
	attrs := []slog.Attr{slog.Uint64("seq", e.Seq), slog.String("kind", string(e.Kind))}
	for _, a := range []struct{ key, value string }{
		{"op", string(e.Op)}, {"cluster", e.Cluster}, {"environment", e.Environment}, {"task",
			e.Task},
		{"version", e.Version}, {"digest", string(e.Digest)}, {"actor", e.Actor}, {"reason",
			e.Reason},
		{"err", e.Error}, {"doubt", e.Doubt},
	} {
		if a.value != "" {
			attrs = append(attrs, slog.String(a.key, a.value))
		}
	}
	if e.Generation != 0 {
		attrs = append(attrs, slog.Uint64("change", e.Change),
			slog.Uint64("generation", e.Generation))
	}
	p.log.LogAttrs(ctx, level, "journal entry", attrs...)
}

// withCause returns err, and when ctx has ended an error that wraps both err and the context's
// cause.
func withCause(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	if cause := context.Cause(ctx); !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", err, cause)
	}
	return err
}
