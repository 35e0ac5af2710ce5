package promote_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluice-deploy/sluice/promote"
)

func TestNewRefusesGatesThatCouldNotWork(t *testing.T) {
	t.Parallel()
	_, err := promote.New(promote.Config{Journal: promote.NewMemJournal(), Deployer: newWorld(),
		Gates: []promote.Gate{
			nil,
			promote.ConfigGate{},
			promote.ApprovalGate{Rules: map[string]promote.ApprovalRule{"prodution": {Count: 1},
				"stable": {}, "production": {Count: 2, Approvers: []string{"a", "a"}}}},
			promote.SoakGate{Times: map[string]time.Duration{"test": time.Hour, "stable": 0}},
			promote.FreezeGate{Freezes: []promote.Freeze{
				{Environments: []string{"prod"}},
				{Reason: "one", From: time.Unix(2, 0), Until: time.Unix(1, 0), Start: 1},
				{Reason: "two", Days: []time.Weekday{7}, Length: 8 * 24 * time.Hour},
			}},
		}})
	for _, want := range []string{
		"promote: Config.Gates[0]: nil: want a gate: invalid",
		"promote: Config.Gates[1] (config): Source: nil: want one: invalid",
		`promote: Config.Gates[2] (approval): environment "prodution": the pipeline has test`,
		`Rules["stable"].Count: 0: want 1 or more: invalid`,
		`Rules["production"].Count: 2 approvals of 1 approvers: invalid`,
		`promote: Config.Gates[3] (soak): Times["test"]: 1h0m0s`, `Times["stable"]: 0s`,
		"promote: Config.Gates[4] (freeze): Freezes[0] (): no reason: invalid",
		`Freezes[0] (): environment "prod"`,
		"Freezes[0] (): without days it needs from and until", "Freezes[1] (one): from is not " +
			"before until",
		"Freezes[1] (one): start and length need days", "Freezes[2] (two): want a start within " +
			"the day", "there is no day 7",
	} {
		require.ErrorContains(t, err, want)
	}
	require.ErrorIs(t, err, promote.ErrInvalid)
}

func TestApprovals(t *testing.T) {
	t.Parallel()
	gate := promote.ApprovalGate{Rules: map[string]promote.ApprovalRule{
		"test": {Count: 2, Approvers: []string{"bob", "carol", "dave", "ci", "alice"},
			NotBuilder: true, Within: time.Hour},
		"sandbox": {Count: 1},
	}}
	start := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	now := start
	w := newWorld()
	p := newPromoter(t, promote.Config{Journal: promote.NewMemJournal(), Deployer: w,
		Gates: []promote.Gate{gate}, Now: func() time.Time {
			return now
		}})
	require.NoError(t, p.Bind(t.Context(), binding("v1", digest(1))))
	review := func(actor string, approve bool, reason string) {
		require.NoError(t, p.Review(t.Context(), promote.Review{Target: in("test"), Version: "v1",
			Approve: approve, Actor: actor, Reason: reason}))
	}
	refused := func(want ...string) {
		t.Helper()
		_, err := p.Promote(t.Context(), request("test", "v1")) // alice asks
		for _, s := range want {
			require.ErrorContains(t, err, s)
		}
		require.Empty(t, w.snapshot())
	}
	refused("approval gate: test needs 2 approvals of v1 (sha256:010101010101) and has 0")
	review("alice", true, "")
	review("ci", true, "")
	review("mallory", true, "")
	review("bob", true, "")
	review("bob", true, "twice is once")
	refused("has 1 (bob), not counting: alice asks for it, ci built it, mallory is not an approver")
	review("carol", false, "breaks login")
	review("dave", true, "")
	refused("carol rejected v1 (sha256:010101010101) for test at 2026-01-02T03:00:00Z: breaks login")
	now = start.Add(90 * time.Minute)
	review("carol", true, "fixed by a flag")
	refused("has 1 (carol), not counting:", "bob's is older than 1h0m0s")
	review("dave", true, "")
	_, err := p.Promote(t.Context(), request("test", "v1"))
	require.NoError(t, err)

	refused2 := func(environment, version string) {
		t.Helper()
		_, err := p.Promote(t.Context(), request(environment, version))
		require.ErrorContains(t, err, "has 0")
	}
	_, err = p.Promote(t.Context(), request("test", "v1"))
	require.NoError(t, err, "the digest that is current needs none")
	refused2("sandbox", "v1") // the approvals were for test
	require.NoError(t, p.Bind(t.Context(), binding("v2", digest(2))))
	refused2("test", "v2") // and for that digest
	_, err = p.Rollback(t.Context(), promote.RollbackRequest{Expect: promote.Any,
		Target: in("test"), Digest: digest(1),
		Actor: "alice"})
	require.NoError(t, err, "a rollback needs none")
	_, err = p.Promote(t.Context(), request("production", "v2"))
	require.NoError(t, err, "no rule")

	require.ErrorIs(t, p.Review(t.Context(), promote.Review{Target: in("test"), Version: "v9",
		Actor: "bob"}), promote.ErrUnbound)
	require.ErrorIs(t, p.Review(t.Context(), promote.Review{Target: in("prod"), Version: "v1",
		Actor: "bob"}), promote.ErrInvalid)
}

// An approval that is withdrawn while another gate is being asked does not slip through.
func TestRejectionWhileTheGatesAreAsked(t *testing.T) {
	t.Parallel()
	var p *promote.Promoter
	var w *world
	review := func(approve bool) {
		require.NoError(t, p.Review(t.Context(), promote.Review{Target: in("test"), Version: "v1",
			Approve: approve, Actor: "bob"}))
	}
	first := true
	p, w = setup(t,
		promote.ApprovalGate{Rules: map[string]promote.ApprovalRule{"test": {Count: 1}}},
		listens(func(promote.Change) {
			if first {
				review(false)
			}
			first = false
		}))
	review(true)
	_, err := p.Promote(t.Context(), request("test", "v1"))
	require.ErrorContains(t, err, "bob rejected v1")
	require.Empty(t, w.snapshot())
}

func TestSoakGate(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	run := func(environment string, from, until time.Duration) promote.Run {
		r := promote.Run{Target: in(environment), From: start.Add(from)}
		if until > 0 {
			r.Until = start.Add(until)
		}
		return r
	}
	h := time.Hour
	for name, c := range map[string]struct {
		op    promote.Op
		runs  []promote.Run
		want  string
		opens time.Duration // after start; zero when it is not known
	}{
		"long enough, and live": {runs: []promote.Run{run("sandbox", 0, 0)}},
		"exactly":               {runs: []promote.Run{run("sandbox", 8*h, 0)}},
		"long enough once": {runs: []promote.Run{run("sandbox", 0, 2*h),
			run("sandbox", 9*h, 0)}},
		"too short": {runs: []promote.Run{run("sandbox", 9*h, 0)},
			want:  "live in sandbox for 1h0m0s of 2h0m0s: wait until 2026-01-02T14:00:00Z",
			opens: 11 * h},
		"short ones do not add up": {runs: []promote.Run{run("sandbox", 1*h, 2*h),
			run("sandbox", 3*h, 4*h)}, want: "for 1h0m0s of 2h0m0s and is not live there now"},
		"elsewhere does not count": {runs: []promote.Run{run("test", 0, 0)},
			want: "for 0s of 2h0m0s and is not live there now"},
		"never": {want: "for 0s"},
		"the clock went back": {runs: []promote.Run{run("sandbox", 12*h, 0)}, want: "for 0s",
			opens: 14 * h},
		"two tasks, the older opens": {runs: []promote.Run{run("sandbox", 9*h, 0),
			run("sandbox", 8*h+30*time.Minute, 0)}, want: "for 1h30m0s", opens: 10*h +
			30*time.Minute},
		"a fast rollback passes": {op: promote.OpRollback},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := promote.SoakGate{Times: map[string]time.Duration{"production": 2 * h}}.Check(
				t.Context(), promote.Change{
					Op: c.op, Fast: c.op == promote.OpRollback, Target: in("production"),
					PreviousEnvironment: "sandbox",
					Time:                start.Add(10 * h), Runs: c.runs})
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			var refusal *promote.Refusal
			require.ErrorAs(t, err, &refusal)
			require.ErrorContains(t, err, c.want)
			var opens time.Time
			if c.opens > 0 {
				opens = start.Add(c.opens)
			}
			require.Equal(t, opens, refusal.Until)
		})
	}
}

func TestFreezeGate(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	at := func(s string) time.Time {
		v, err := time.ParseInLocation("2006-01-02 15:04", s, berlin)
		require.NoError(t, err)
		return v
	}
	gate := promote.FreezeGate{Freezes: []promote.Freeze{
		{Reason: "weekend", Environments: []string{"production"}, Days: []time.Weekday{time.Friday},
			Start: 16 * time.Hour, Length: 64 * time.Hour, Location: berlin},
		{Reason: "sale", From: at("2026-11-09 08:00"), Until: at("2026-11-12 00:00"),
			Rollbacks: true},
	}}
	for name, c := range map[string]struct {
		at, environment string
		op              promote.Op
		want, open      string
	}{
		"before the weekend": {at: "2026-10-23 15:59", environment: "production"},
		// the clocks went back
		"weekend": {at: "2026-10-23 16:00", environment: "production",
			want: "production is frozen until 2026-10-26T07:00:00Z: weekend",
			open: "2026-10-26 08:00"},
		"weekend, last minute": {at: "2026-10-26 07:59", environment: "production",
			want: "weekend", open: "2026-10-26 08:00"},
		"weekend over":      {at: "2026-10-26 08:00", environment: "production"},
		"weekend elsewhere": {at: "2026-10-24 12:00", environment: "stable"},
		"weekend, rollback": {at: "2026-10-24 12:00", environment: "production",
			op: promote.OpRollback},
		"weekend, then the sale": {at: "2026-11-07 12:00", environment: "production",
			want: "weekend", open: "2026-11-12 00:00"},
		"sale": {at: "2026-11-10 12:00", environment: "test",
			want: "test is frozen until 2026-11-11T23:00:00Z: sale", open: "2026-11-12 00:00"},
		"sale, rollback": {at: "2026-11-10 12:00", environment: "test",
			op: promote.OpRollback, want: "sale", open: "2026-11-12 00:00"},
		"sale over": {at: "2026-11-12 00:00", environment: "test"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := gate.Check(t.Context(), promote.Change{Op: c.op, Target: in(c.environment),
				Time: at(c.at)})
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			var refusal *promote.Refusal
			require.ErrorAs(t, err, &refusal)
			require.ErrorContains(t, err, c.want)
			require.True(t, refusal.Until.Equal(at(c.open)), "opens at %s", refusal.Until)
		})
	}
	always := promote.FreezeGate{Freezes: []promote.Freeze{{Reason: "closed down",
		Days: []time.Weekday{time.Monday}, Length: 7 * 24 * time.Hour}}}
	var refusal *promote.Refusal
	require.ErrorAs(t, always.Check(t.Context(), promote.Change{Target: in("test"),
		Time: at("2026-11-10 12:00")}), &refusal)
	require.Zero(t, refusal.Until, "never, as far as can be seen")
}

// A weekly freeze is in force in exactly those hours of the week that counting them one by one
// says.
func TestWeeklyFreezeAgainstOracle(t *testing.T) {
	t.Parallel()
	sunday := time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)
	rapid.Check(t, func(rt *rapid.T) {
		days := rapid.SliceOfNDistinct(rapid.IntRange(0, 6), 1, 7, rapid.ID).Draw(rt, "days")
		start, length := rapid.IntRange(0, 23).Draw(rt, "start"), rapid.IntRange(1, 7*24).Draw(rt,
			"length")
		f := promote.Freeze{Reason: "r", Start: time.Duration(start) * time.Hour,
			Length: time.Duration(length) * time.Hour}
		var frozen [7 * 24]bool
		for _, d := range days {
			f.Days = append(f.Days, time.Weekday(d))
			for hour := range length {
				frozen[(d*24+start+hour)%len(frozen)] = true
			}
		}
		hour := rapid.IntRange(0, len(frozen)-1).Draw(rt, "hour")
		now := sunday.Add(time.Duration(hour) * time.Hour)
		err := promote.FreezeGate{Freezes: []promote.Freeze{f}}.Check(t.Context(),
			promote.Change{Target: in("test"), Time: now})
		require.Equal(rt, frozen[hour], err != nil, fmt.Sprint(err))
		if err == nil {
			return
		}
		wait := 0
		for wait < len(frozen) && frozen[(hour+wait)%len(frozen)] {
			wait++
		}
		var refusal *promote.Refusal
		require.ErrorAs(rt, err, &refusal)
		if wait == len(frozen) {
			require.Zero(rt, refusal.Until)
		} else {
			require.Equal(rt, now.Add(time.Duration(wait)*time.Hour), refusal.Until)
		}
	})
}

// A weekly freeze near a change of clocks is in force exactly when the clock on the wall has shown
// its beginning and will still show a time before its end.
func TestWeeklyFreezeWhenClocksChange(t *testing.T) {
	t.Parallel()
	const step = 5 * time.Minute
	type changing struct {
		location *time.Location
		at       time.Time
	}
	var changes []changing
	for _, name := range []string{"Europe/Berlin", "America/New_York", "America/St_Johns",
		"Australia/Lord_Howe", "Africa/Casablanca", "America/Santiago", "Asia/Beirut",
		"Pacific/Chatham", "America/Havana", "Pacific/Apia", "Asia/Kathmandu"} {
		location, err := time.LoadLocation(name)
		require.NoError(t, err)
		at := time.Date(2011, 1, 1, 0, 0, 0, 0, location)
		for {
			if _, at = at.ZoneBounds(); at.IsZero() || at.Year() > 2030 {
				break
			}
			changes = append(changes, changing{location, at})
		}
	}
	require.Greater(t, len(changes), 200)
	wall := func(t time.Time) time.Time {
		_, offset := t.Zone()
		return t.UTC().Add(time.Duration(offset) * time.Second)
	}
	steps := func(from, to time.Duration) *rapid.Generator[time.Duration] {
		return rapid.Map(rapid.IntRange(int(from/step), int(to/step)),
			func(n int) time.Duration { return time.Duration(n) * step })
	}
	rapid.Check(t, func(rt *rapid.T) {
		c := rapid.SampledFrom(changes).Draw(rt, "change")
		begin := c.at.Add(steps(-30*time.Hour, 5*time.Hour).Draw(rt, "begin"))
		now := c.at.Add(steps(-5*time.Hour, 30*time.Hour).Draw(rt, "now"))
		shown := wall(begin)
		day := shown.Truncate(24 * time.Hour)
		f := promote.Freeze{Reason: "r", Location: c.location, Days: []time.Weekday{day.Weekday()},
			Start: shown.Sub(day), Length: steps(step, 40*time.Hour).Draw(rt, "length")}
		highest, lowest := wall(now), wall(now)
		for at := now.Add(-25 * time.Hour); at.Before(now); at = at.Add(step) {
			if w := wall(at); w.After(highest) {
				highest = w
			}
		}
		for at := now; at.Before(now.Add(25 * time.Hour)); at = at.Add(step) {
			if w := wall(at); w.Before(lowest) {
				lowest = w
			}
		}
		frozen := false
		for week := -1; week <= 1; week++ {
			from := shown.AddDate(0, 0, 7*week)
			frozen = frozen || !highest.Before(from) && lowest.Before(from.Add(f.Length))
		}
		err := promote.FreezeGate{Freezes: []promote.Freeze{f}}.Check(t.Context(),
			promote.Change{Target: in("test"), Time: now})
		require.Equal(rt, frozen, err != nil, "%s, clocks change at %s, now %s: %v", f.Start, c.at,
			now, err)
	})
}
