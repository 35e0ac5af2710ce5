package rules_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/depcheck"
	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/gatetest"
	"github.com/sluice-deploy/sluice/promote/rules"
)

const document = `
version: 1
rules:
  - name: everybody
    approvals:
      production: {count: 1, notBuilder: true}
      stable: {count: 1}
    soak: {production: 1h, stable: 24h}
    freezes:
      - {reason: weekend, environments: [production], days: [friday], start: "16:00",
         length: 64h, location: Europe/Berlin}
  - name: payments
    clusters: [billing, pay_*]
    approvals:
      production: {count: 2, approvers: [bob, carol, dave], notDeployer: true, within: 8h}
    traffic: {production: 100}
    soak: {stable: 0s}
    freezes:
      - reason: audit
        from: 2026-12-01T00:00:00Z
        until: 2026-12-02T00:00:00Z
        rollbacks: true
`

func TestImports(t *testing.T) {
	t.Parallel()
	depcheck.Allow(t, "github.com/sluice-deploy/sluice/promote/rules",
		[]string{"go.yaml.in/yaml/v3"}, "net/http", "os/exec")
}

func TestParse(t *testing.T) {
	t.Parallel()
	r, err := rules.Parse("rules.yaml", []byte(document), promote.DefaultPipeline())
	require.NoError(t, err)
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	weekend := promote.Freeze{Reason: "weekend", Environments: []string{"production"},
		Days: []time.Weekday{time.Friday}, Start: 16 * time.Hour, Length: 64 * time.Hour,
		Location: berlin}
	everybody := rules.Cluster{
		Approvals: map[string]promote.ApprovalRule{
			"production": {Count: 1, NotBuilder: true}, "stable": {Count: 1}},
		Soak:    map[string]time.Duration{"production": time.Hour, "stable": 24 * time.Hour},
		Traffic: map[string]uint64{}, Freezes: []promote.Freeze{weekend},
		From: []string{"everybody"},
	}
	payments := rules.Cluster{
		Approvals: map[string]promote.ApprovalRule{"production": {Count: 2, NotDeployer: true,
			Approvers: []string{"bob", "carol", "dave"}, Within: 8 * time.Hour},
			"stable": {Count: 1}},
		Soak:    map[string]time.Duration{"production": time.Hour},
		Traffic: map[string]uint64{"production": 100},
		Freezes: []promote.Freeze{weekend, {Reason: "audit", Rollbacks: true,
			From:  time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC),
			Until: time.Date(2026, 12, 2, 0, 0, 0, 0, time.UTC)}},
		From: []string{"everybody", "payments"},
	}
	for cluster, want := range map[string]rules.Cluster{"web": everybody, "pay": everybody,
		"billing_v2": everybody, "billing": payments, "pay_card": payments} {
		require.Equal(t, want, r.For(cluster), cluster)
	}
	fromJSON, err := rules.Parse("rules.json",
		[]byte(`{"version": 1, "rules": [{"name": "a", "soak": {"stable": "1h"}}]}`),
		promote.DefaultPipeline())
	require.NoError(t, err)
	require.Equal(t, map[string]time.Duration{"stable": time.Hour}, fromJSON.For("web").Soak)
}

// All errors come at once, each with its line.
func TestParseErrors(t *testing.T) {
	t.Parallel()
	_, err := rules.Parse("rules.yaml", []byte(`version: 2
rules:
  - name: a
    aprovals: {}
    approvals:
      prod: {count: 1}
      production: {count: 3, approvers: [bob, Bob]}
      stable: {notBuilder: maybe}
    soak: {test: 1h, production: soon}
    soak: {}
  - clusters: [A, "a*b", "*"]
    traffic: {stable: -1}
    freezes:
      - {reason: "", days: [fryday], start: 16:00, location: Mars/Base, from: yesterday}
      - {reason: x, environments: [moon], from: 2026-12-02T00:00:00Z}
  - name: a
    approvals: {production: 2}
    clusters: []
`), promote.DefaultPipeline())
	require.ErrorIs(t, err, promote.ErrInvalid)
	var lines []string
	for line := range strings.Lines(err.Error()) {
		require.True(t, strings.HasSuffix(strings.TrimSpace(line), ": invalid"), line)
		lines = append(lines, strings.TrimSpace(line))
	}
	for i, want := range []string{
		`rules.yaml:1: version "2": this program reads version 1`,
		`rules.yaml:4: "aprovals": there is no such key: want approvals, clusters`,
		`rules.yaml:6: environment "prod": the pipeline has test, sandbox`,
		`rules.yaml:7: Rules["production"].Count: 3 approvals of 1 approvers`,
		`rules.yaml:8: "maybe": want true or false`,
		`rules.yaml:8: no count`,
		`rules.yaml:9: environment test: it has none before it`,
		`rules.yaml:9: "soon": want a time`,
		`rules.yaml:10: "soak" comes twice`,
		`rules.yaml:11: cluster "A": want the name of a cluster`,
		`rules.yaml:11: cluster "a*b"`,
		`rules.yaml:12: "-1": want a number`,
		`rules.yaml:14: "fryday": want a day of the week`,
		`rules.yaml:14: "Mars/Base": want a name of the tz database`,
		`rules.yaml:14: "yesterday": want a time as in RFC 3339`,
		`rules.yaml:15: Freezes[0] (x): environment "moon"`,
		`rules.yaml:15: Freezes[0] (x): without days`,
		`rules.yaml:11: a rule without a name`,
		`rules.yaml:17: want keys and values`,
		`rules.yaml:17: no count`,
		`rules.yaml:18: no cluster`,
		`rules.yaml:16: two rules are called "a"`,
	} {
		found := false
		for _, line := range lines {
			found = found || strings.HasPrefix(line, want)
		}
		require.True(t, found, "%d %s in:\n%v", i, want, err)
	}
	for text, want := range map[string]string{
		"":                               "rules.yaml:1: empty",
		"a: [":                           "yaml: line 1",
		"[]":                             "want keys and values",
		"rules: []":                      "no version",
		"version: 1\n---\nversion: 1":    "rules.yaml:2: a second document",
		"version: 1\nrules: &a\n- *a":    "rules.yaml:3: want keys and values",
		"version: 1\n<<: {rules: []}":    "rules.yaml:2: want a name as the key",
		"version: 1\nrules: [{name: ~}]": "rules.yaml:2: want a text",
		strings.Repeat("#", 5<<20):       "want up to",
	} {
		_, err := rules.Parse("rules.yaml", []byte(text), promote.DefaultPipeline())
		require.ErrorIs(t, err, promote.ErrInvalid, text[:min(40, len(text))])
		require.ErrorContains(t, err, want)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(document))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := rules.Parse("rules.yaml", data, promote.DefaultPipeline())
		if err != nil {
			require.ErrorIs(t, err, promote.ErrInvalid)
			return
		}
		r.For("web")
	})
}

func TestConfig(t *testing.T) {
	t.Parallel()
	_, err := rules.Open(t.Context(), rules.Config{Every: -1, Pipeline: promote.Pipeline{}})
	require.ErrorIs(t, err, promote.ErrInvalid)
	for _, want := range []string{"Config.Path: empty", "Config.Every: -1ns",
		"Config.Pipeline: pipeline: no environment"} {
		require.ErrorContains(t, err, want)
	}
	path := write(t, document)
	_, err = rules.Open(t.Context(), rules.Config{Path: path})
	require.ErrorContains(t, err, ":12: rule \"payments\" has traffic")
	_, err = rules.Open(t.Context(), rules.Config{Path: path + ".gone"})
	require.ErrorIs(t, err, os.ErrNotExist)
	cause := errors.New("the caller's reason")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	_, err = rules.Open(ctx, rules.Config{Path: path})
	require.ErrorIs(t, err, cause)
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rules.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// counts is a Traffic of one number.
type counts uint64

func (n counts) Requests(ctx context.Context, _ promote.Target, _ promote.Digest, _,
	_ time.Time) (uint64, error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	return uint64(n), nil
}

func TestGates(t *testing.T) {
	t.Parallel()
	set, err := rules.Open(t.Context(), rules.Config{Path: write(t, document), Traffic: counts(99)})
	require.NoError(t, err)
	now := time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC) // a Tuesday
	to := func(cluster, environment string) promote.Change {
		return promote.Change{Op: promote.OpPromote, Version: "v1", Actor: "alice", Time: now,
			Digest:              promote.Digest("sha256:" + strings.Repeat("1", 64)),
			Target:              promote.Target{Cluster: cluster, Environment: environment},
			PreviousEnvironment: promote.DefaultPipeline().Previous(environment)}
	}
	approved := to("web", "production")
	approved.Reviews = []promote.Review{{Actor: "bob", Approve: true, Time: now}}
	soaked := to("web", "production")
	soaked.Runs = []promote.Run{{Target: to("web", "sandbox").Target, From: now.Add(-time.Hour)}}
	one := to("billing", "production")
	one.Reviews = approved.Reviews
	harness := map[string]gatetest.Harness{
		"approval": {Pass: map[string]promote.Change{"one": approved, "no rule": to("web", "test")},
			Refuse: map[string]promote.Change{"none": to("web", "production"), "two needed": one}},
		"soak": {Pass: map[string]promote.Change{"an hour": soaked,
			"lifted": to("pay_card", "stable")},
			Refuse: map[string]promote.Change{"never": to("web", "production")}},
		"freeze": {Pass: map[string]promote.Change{"others": to("web", "production")},
			Refuse: map[string]promote.Change{"audit": to("billing", "test")}},
		"traffic": {Pass: map[string]promote.Change{"no rule": to("web", "production")},
			Refuse: map[string]promote.Change{"99 of 100": to("billing", "production")}},
	}
	gates := set.Gates()
	require.Len(t, gates, len(harness))
	for _, gate := range gates {
		h := harness[gate.Name()]
		h.Gate = gate
		t.Run(gate.Name(), func(t *testing.T) {
			t.Parallel()
			gatetest.Run(t, func(*testing.T) gatetest.Harness { return h })
		})
	}
}

// lines is a log that can be read beside its writer.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}

// A new document is in force without a restart; a bad one leaves the rules as they were; an
// approval under other rules does not count any more.
func TestReload(t *testing.T) {
	t.Parallel()
	path := write(t, "version: 1\nrules: [{name: a, approvals: {test: {count: 1}}}]")
	log := &lines{}
	var reloads []string
	set, err := rules.Open(t.Context(), rules.Config{Path: path, Every: time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(log, nil)),
		Observe: func(op string, _ time.Duration, err error) {
			if len(reloads) == 0 {
				reloads = append(reloads, op)
			}
		}})
	require.NoError(t, err)
	require.Equal(t, []string{"reload"}, reloads)
	p, err := promote.New(promote.Config{Journal: promote.NewMemJournal(), Deployer: nothing{},
		Gates: set.Gates()})
	require.NoError(t, err)
	digest := promote.Digest("sha256:" + strings.Repeat("1", 64))
	target := promote.Target{Cluster: "web", Environment: "test"}
	require.NoError(t, p.Bind(t.Context(), promote.Binding{Cluster: "web", Version: "v1",
		Digest: digest, Repository: "registry:5000/web", Actor: "ci"}))
	require.NoError(t, p.Review(t.Context(), promote.Review{Target: target, Version: "v1",
		Approve: true, Actor: "bob"}))
	ask := func() error {
		return p.Check(t.Context(), promote.Request{Target: target, Version: "v1",
			Expect: promote.None, Actor: "alice"})
	}
	require.NoError(t, ask())

	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- set.Run(ctx) }()
	replace := func(text string) {
		require.NoError(t, os.WriteFile(path+".new", []byte(text), 0o600))
		require.NoError(t, os.Rename(path+".new", path))
	}
	eventually := func(f func() bool) {
		t.Helper()
		require.Eventually(t, f, time.Minute, time.Millisecond)
	}
	replace("version: 1\nrules: [{name: a, aprovals: {}}]")
	eventually(func() bool { return log.has("rules stay as they were") })
	require.NoError(t, ask())
	require.NoError(t, os.Remove(path))
	eventually(func() bool { return log.has("no such file") })
	require.NoError(t, ask())
	replace("version: 1\nrules: [{name: a, approvals: {test: {count: 1, notBuilder: true}}}]")
	eventually(func() bool { return log.has("rules in force") })
	require.ErrorContains(t, ask(), "bob's was given under other rules")
	require.Equal(t, []string{"a"}, set.Rules().For("web").From)
	cause := errors.New("the caller's reason")
	cancel(cause)
	require.ErrorIs(t, <-ended, cause)
}

// nothing is a Deployer that does nothing.
type nothing struct{}

func (nothing) Deploy(context.Context, promote.Deployment) error { return nil }
func (nothing) Remove(context.Context, promote.Deployment) error { return nil }
