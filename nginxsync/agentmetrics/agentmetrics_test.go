package agentmetrics_test

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/agentmetrics"
)

func scrape(m *agentmetrics.Metrics) string {
	w := httptest.NewRecorder()
	m.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	m, err := agentmetrics.New(agentmetrics.Config{Now: func() time.Time { return now }})
	require.NoError(t, err)
	m.SetTargets([]agentmetrics.Target{
		{Name: `a"b\c`, Status: func() nginxsync.Status {
			return nginxsync.Status{Revision: 7, Desired: nginxsync.Generation{Number: 4, Digest: "a"},
				Verified:  nginxsync.Generation{Number: 3, Digest: "b"},
				ChangedAt: now.Add(-1500 * time.Millisecond), Pushes: 12, SourceError: "away",
				Held: []nginxsync.Held{{Alarm: true}, {}}}
		}},
		{Name: "z", Status: func() nginxsync.Status { return nginxsync.Status{} }},
	})
	observe := m.Observe("consul")
	observe("service", 500*time.Microsecond, nil)
	observe("service", 600*time.Microsecond, errors.New("x"))
	observe("service", time.Hour, nil)
	require.NotContains(t, scrape(m), "failing")
	m.SetChecks(func() agentmetrics.Checks {
		return agentmetrics.Checks{Checked: 9, Failing: map[string]int{"web": 2, "api": 1}}
	})
	text := scrape(m)
	for _, want := range []string{
		`sluice_agent_revision{nginx="a\"b\\c"} 7`,
		`sluice_agent_verified{nginx="z"} 0`,
		`sluice_agent_lag_seconds{nginx="a\"b\\c"} 1.5`,
		`sluice_agent_held{nginx="a\"b\\c"} 2`,
		`sluice_agent_held_alarms{nginx="a\"b\\c"} 1`,
		`sluice_agent_pushes_total{nginx="a\"b\\c"} 12`,
		`sluice_agent_source_error{nginx="a\"b\\c"} 1`,
		`sluice_agent_generation{nginx="a\"b\\c",state="desired"} 4`,
		`sluice_agent_call_duration_seconds_bucket{of="consul",op="service",le="0.0005"} 1`,
		`sluice_agent_call_duration_seconds_bucket{of="consul",op="service",le="0.001"} 2`,
		`sluice_agent_call_duration_seconds_bucket{of="consul",op="service",le="10"} 2`,
		`sluice_agent_call_duration_seconds_bucket{of="consul",op="service",le="+Inf"} 3`,
		`sluice_agent_call_duration_seconds_count{of="consul",op="service"} 3`,
		`sluice_agent_call_errors_total{of="consul",op="service"} 1`,
		"# TYPE sluice_agent_pushes_total counter",
		"sluice_agent_checked_instances{} 9",
		"sluice_agent_failing_instances{cluster=\"api\"} 1\n" +
			"sluice_agent_failing_instances{cluster=\"web\"} 2",
	} {
		require.Contains(t, text, want+"\n")
	}
	// Each family has one head, before its samples.
	heads := map[string]bool{}
	for line := range strings.Lines(text) {
		if name, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, _, _ = strings.Cut(name, " ")
			require.False(t, heads[name], name)
			heads[name] = true
		}
	}
}
