package promote_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/promote"
)

func usesOf(t *testing.T, p *promote.Promoter) (list []string) {
	t.Helper()
	uses, err := p.InUse(t.Context())
	require.NoError(t, err)
	for _, u := range uses {
		require.Equal(t, "registry:5000/web", u.Repository)
		list = append(list, u.String())
	}
	return list
}

func TestInUse(t *testing.T) {
	t.Parallel()
	w := newWorld()
	p := newPromoter(t, promote.Config{Journal: promote.NewMemJournal(), Deployer: w})
	require.Empty(t, usesOf(t, p))
	for n, version := range []string{"v1", "v2", "v3", "v4"} {
		require.NoError(t, p.Bind(t.Context(), binding(version, digest(n+1))))
	}
	require.Empty(t, usesOf(t, p), "a version that is only bound")
	for _, version := range []string{"v1", "v2", "v3"} {
		_, err := p.Promote(t.Context(), request("test", version))
		require.NoError(t, err)
	}
	_, err := p.Promote(t.Context(), request("sandbox", "v1"))
	require.NoError(t, err)
	require.NoError(t, p.Review(t.Context(), promote.Review{Target: in("production"),
		Version: "v3", Approve: true, Actor: "bob"}))
	require.NoError(t, p.Review(t.Context(), promote.Review{Target: in("production"),
		Version: "v4", Actor: "bob"}))
	h := newHold(w)
	task := request("test", "v4")
	task.Task = "t1"
	id, err := p.Start(t.Context(), task)
	require.NoError(t, err)
	require.Equal(t, []string{
		"version v3 of web is current in test",
		"version v2 of web can be rolled back to in test", // v1 is two back
		"version v4 of web is being deployed in test for task t1 by change " + string(id),
		"version v1 of web is current in sandbox",
		"version v3 of web is approved for production",
	}, usesOf(t, p))
	close(h.release)
	ends(t, p, id)
	require.NoError(t, p.Retire(t.Context(), promote.RetireRequest{Target: in("sandbox"),
		Expect: promote.Any, Actor: "a"}))
	require.Contains(t, usesOf(t, p), "version v1 of web can be rolled back to in sandbox")
}

// A digest that a rollback reaches quickly through the gates is in use, by number and by time.
func TestInUseByRule(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		rule promote.RollbackRule
		want []string
	}{
		"default":   {promote.RollbackRule{}, []string{"v3", "v4"}},
		"by number": {promote.RollbackRule{Versions: 2}, []string{"v2", "v3", "v4"}},
		"by time":   {promote.RollbackRule{Within: 150 * time.Minute}, []string{"v2", "v3", "v4"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPromoter(t, promote.Config{Journal: promote.NewMemJournal(),
				Deployer: newWorld(), Rollback: c.rule, Now: func() time.Time { return now }})
			for n, version := range []string{"v1", "v2", "v3", "v4"} {
				require.NoError(t, p.Bind(t.Context(), binding(version, digest(n+1))))
				_, err := p.Promote(t.Context(), request("test", version))
				require.NoError(t, err)
				now = now.Add(time.Hour)
			}
			uses, err := p.InUse(t.Context())
			require.NoError(t, err)
			var versions []string
			for _, u := range uses {
				versions = append(versions, u.Version)
			}
			require.ElementsMatch(t, c.want, versions)
		})
	}
}

// A cluster that cannot be read makes the list incomplete, and that is said.
func TestInUseOfADamagedJournal(t *testing.T) {
	t.Parallel()
	journal := promote.NewMemJournal()
	p := newPromoter(t, promote.Config{Journal: journal, Deployer: newWorld()})
	require.NoError(t, p.Bind(t.Context(), binding("v1", digest(1))))
	_, err := p.Promote(t.Context(), request("test", "v1"))
	require.NoError(t, err)
	_, err = journal.Append(t.Context(), promote.Entry{Seq: 1, Kind: promote.Bound,
		Target: promote.Target{Cluster: "api"}, Chain: "wrong"})
	require.NoError(t, err)
	uses, err := p.InUse(t.Context())
	require.ErrorIs(t, err, promote.ErrDamaged)
	require.ErrorContains(t, err, `cluster "api"`)
	require.Len(t, uses, 1)
}
