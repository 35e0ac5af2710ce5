package nginxsync_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
)

func TestSnapshotValidateNamesEverything(t *testing.T) {
	t.Parallel()
	s := nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{"a b": {{ID: "", Weight: -1, Version: "-"}}}}
	err := s.Validate()
	for _, want := range []string{`cluster "a b"`, "id is empty", "weight -1", `version "-" stands for no version`, "want a host address"} {
		require.ErrorContains(t, err, want)
	}
	require.ErrorIs(t, err, nginxsync.ErrInvalid)
}
