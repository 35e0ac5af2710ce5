package edge_test

import (
	"net"
	"strconv"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/server/edge"
	"github.com/sluice-deploy/sluice/internal/testbed"
)

// Nginx finds out that a port is taken only when it reloads; its command has long said that all is
// well.
func TestStartSeesAReloadThatNginxRefuses(t *testing.T) {
	t.Parallel()
	dir, port := t.TempDir(), testbed.Port(t)
	require.NoError(t, open(t, dir, port, answering("first")).Start(t.Context()))
	taken, err := net.Listen("tcp4", ":0")
	require.NoError(t, err)
	defer taken.Close()
	_, busy, err := net.SplitHostPort(taken.Addr().String())
	require.NoError(t, err)
	number, err := strconv.Atoi(busy)
	require.NoError(t, err)

	tree := answering("second")
	tree["sites/two.conf"] = &fstest.MapFile{Data: []byte("server {\n    listen 81;\n}\n")}
	e, err := edge.Open(t.Context(), edge.Config{Dir: dir, Tree: tree, Ports: map[int]int{80: port,
		81: number}})
	require.NoError(t, err, "nginx -t does not find it")
	err = e.Start(t.Context())
	require.ErrorContains(t, err, "goes on with the old one")
	require.ErrorContains(t, err, busy)
	require.Equal(t, "first", ask(port))
}
