package conf_test

import (
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

func TestOrigin(t *testing.T) {
	t.Parallel()
	const text = "a 1;\nb {\n    c 2;\n    d 3;\n}\ne 4;"
	tree, err := conf.Parse(fstest.MapFS{"nginx.conf": {Data: []byte(text)}}, "nginx.conf")
	require.NoError(t, err)
	edit := tree.Edit()
	for n := range tree.All() {
		switch n.Name() {
		case "b":
			edit.Prepend(n.Directive, "x 1;\nx 2;")
		case "c":
			edit.Replace(n.Directive, "c 5;\nc 6;")
		case "d":
			edit.Remove(n.Directive)
		}
	}
	files, err := edit.Files()
	require.NoError(t, err)
	require.Equal(t, "a 1;\nb {\n    x 1;\n    x 2;\n    c 5;\nc 6;\n}\ne 4;", files["nginx.conf"])
	for line, want := range []int{0, 1, 2, 2, 2, 3, 3, 5, 6, 0} {
		got, ok := edit.Origin("nginx.conf", line)
		require.Equal(t, want, got, line)
		require.Equal(t, want > 0, ok)
	}
	_, ok := edit.Origin("other.conf", 1)
	require.False(t, ok)
}
