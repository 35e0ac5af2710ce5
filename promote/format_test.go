package promote_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/promote"
)

// TestFormat0 reads the label of an image in testdata/formats/0: testdata/formats/README.md says
// how it was made.
func TestFormat0(t *testing.T) {
	t.Parallel()
	label, err := os.ReadFile("../testdata/formats/0/envconfig/label.json")
	require.NoError(t, err)
	got, err := promote.ParseConfiguration(label)
	require.NoError(t, err)
	both := []string{"opt/changed", "opt/conf/app", "opt/conf/common"}
	require.Equal(t, promote.Configuration{
		Environments: map[string][]string{
			"production": append(both[:3:3], "opt/fresh/a/file", "opt/render", "opt/same",
				"srv/linked"),
			"test": append(both[:3:3], "opt/gone/deep/file", "opt/render", "opt/same",
				"srv/linked", "srv/unlinked"),
		},
		Required: append(both[:3:3], "opt/fresh/a/file", "opt/gone/deep/file", "opt/render",
			"opt/same", "srv/linked", "srv/unlinked"),
	}, got)
}
