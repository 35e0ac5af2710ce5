package envconfig

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

// The files that each environment lacks follow from a label of any length, by the rule that its
// readers go by.
func TestLabelOfManyFiles(t *testing.T) {
	t.Parallel()
	for _, n := range []int{3, 5000} {
		for _, spec := range []string{"{}", `{"required":["opt/f0","opt/f1","opt/only"]}`} {
			image := fstest.MapFS{SpecName: {Data: []byte(spec)}, "envs/test/opt/only": {}}
			for i := range n {
				for _, name := range []string{"test", "sandbox", "production", "stable"} {
					image[fmt.Sprintf("envs/%s/opt/f%d", name, i)] = &fstest.MapFile{}
				}
			}
			m, err := Scan(image)
			require.NoError(t, err)
			_, value := m.Label()
			require.LessOrEqual(t, len(value), maxLabel, "%d files", n)
			var label struct {
				Environments map[string]struct{ Files []string }
				Required     []string
			}
			require.NoError(t, json.Unmarshal([]byte(value), &label))
			require.Len(t, label.Environments, 4)
			for name, env := range label.Environments {
				missing := slices.DeleteFunc(slices.Clone(label.Required), func(p string) bool {
					return slices.Contains(env.Files, p)
				})
				require.Equal(t, m.Missing(name), append([]string(nil), missing...),
					"%s, %d files: %s", name, n, spec)
			}
		}
	}
}
