package promote_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluice-deploy/sluice/promote"
)

// ledger keeps, in the plainest way, who has approved of a digest in production and when, and what
// is kept back, to judge how each digest came there.
type ledger struct {
	approved    map[int]map[string]time.Time // by digest and person
	quarantined map[int]bool
	live        map[int]bool // the digests that were current in production before
	current     int
	// the current one may owe approvals, which it then collects and does not use up
	broken bool
}

// needs returns how many valid approvals a digest lacks when actor asks for it at now.
func (l *ledger) needs(n int, actor string, now time.Time) int {
	have := 0
	for person, at := range l.approved[n] {
		if person != actor && now.Sub(at) <= 24*time.Hour {
			have++
		}
	}
	return max(0, 2-have)
}

// One identity adopts, promotes, rolls back, retires, releases and overrides while others review,
// quarantine and release, approvals expire, and a breaker breaks the glass. Whenever a digest
// comes to production, two others have approved of it within a day, or the breaker has asked for
// it, or it was there before and comes back by a rollback. What is quarantined never comes.
func TestNobodyAlone(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		ctx, now := context.Background(), time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
		p := newPromoter(t, promote.Config{Journal: promote.NewMemJournal(), Deployer: newWorld(),
			Breakers: []string{"chief"}, Adopters: []string{"zoë"},
			Now: func() time.Time { return now }, Gates: []promote.Gate{promote.ApprovalGate{
				Rules: map[string]promote.ApprovalRule{"production": {Count: 2}}}}})
		for n := 1; n <= 3; n++ {
			require.NoError(rt, p.Bind(ctx, binding(fmt.Sprint("v", n), digest(n))))
		}
		l := ledger{approved: map[int]map[string]time.Time{1: {}, 2: {}, 3: {}},
			quarantined: map[int]bool{}, live: map[int]bool{}}
		target := in("production")
		for range rapid.IntRange(1, 40).Draw(rt, "length") {
			now = now.Add(time.Duration(rapid.SampledFrom([]int{0, 1, 13}).Draw(rt, "hours")) *
				time.Hour)
			n := rapid.IntRange(1, 3).Draw(rt, "n")
			version, actor := fmt.Sprint("v", n), "zoë"
			override := rapid.SampledFrom([]string{"", "urgent"}).Draw(rt, "override")
			keep := promote.QuarantineRequest{Cluster: "web", Digest: digest(n), Actor: "sec",
				Reason: "looked at"}
			var deployed error
			command := rapid.SampledFrom([]string{"promote", "break", "adopt", "roll back",
				"retire", "review", "review", "review", "quarantine", "release"}).Draw(rt,
				"command")
			switch command {
			case "break":
				actor = "chief"
				fallthrough
			case "promote":
				_, deployed = p.Promote(ctx, promote.Request{Target: target, Version: version,
					Actor: actor, Expect: promote.Any, Override: override})
			case "adopt":
				_, _ = p.Adopt(ctx, promote.AdoptRequest{Target: target, Version: version,
					Expect: promote.Any, Actor: actor, Reason: "it runs", Override: override})
			case "roll back":
				_, deployed = p.Rollback(ctx, promote.RollbackRequest{Target: target,
					Digest: digest(n), Expect: promote.Any, Actor: actor})
			case "retire":
				_ = p.Retire(ctx, promote.RetireRequest{Target: target, Expect: promote.Any,
					Actor: actor})
			case "review":
				person := rapid.SampledFrom([]string{"zoë", "bob", "eve", "chief"}).Draw(rt, "by")
				require.NoError(rt, p.Review(ctx, promote.Review{Target: target,
					Version: version, Approve: true, Actor: person}))
				l.approved[n][person] = now
			case "quarantine":
				require.NoError(rt, p.Quarantine(ctx, keep))
				l.quarantined[n] = true
			case "release":
				keep.Actor = rapid.SampledFrom([]string{"sec", "zoë"}).Draw(rt, "by")
				require.NoError(rt, p.Release(ctx, keep))
				l.quarantined[n] = false
			}
			current, err := p.Current(ctx)
			require.NoError(rt, err)
			at := slices.IndexFunc(current, func(d promote.Deployment) bool {
				return d.Target == target
			})
			is := 0
			if at >= 0 {
				_, err = fmt.Sscanf(current[at].Version, "v%d", &is)
				require.NoError(rt, err)
			}
			if is != 0 && is != l.current {
				require.Equal(rt, n, is)
				require.False(rt, l.quarantined[is], "%s brought what is kept back", command)
				switch {
				case actor == "chief" && override != "":
				case command == "roll back":
					require.True(rt, l.live[is])
				default:
					require.Zero(rt, l.needs(is, actor, now), "%s by %s", command, actor)
				}
				clear(l.approved[is]) // used up
			}
			if is != 0 && is == l.current && is == n && deployed == nil && !l.broken &&
				(command == "promote" || command == "break" || command == "roll back") {
				clear(l.approved[is]) // a deployment of the current digest uses them up, too
			}
			broken := actor == "chief" && override != "" && deployed == nil
			l.broken = broken || l.broken && is == l.current
			l.current = is
			l.live[is] = true
		}
	})
}
