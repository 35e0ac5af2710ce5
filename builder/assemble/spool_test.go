//go:build unix && !solaris && !aix

package assemble_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/assemble"
)

// TestKilledBuildLeavesNoSpool kills a process in the middle of an upload. Another engine, which
// builds in the same directory, leaves the spool of a living build alone and removes that of the
// killed one.
func TestKilledBuildLeavesNoSpool(t *testing.T) {
	t.Parallel()
	host, dir := serve(t), t.TempDir()
	request := builder.Request{Dockerfile: []byte("FROM scratch\nCOPY a /a\n"),
		Context: fstest.MapFS{"a": {Data: []byte("A")}}, Repository: host + "/app"}
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), hangIn+"="+dir, hangAt+"="+host)
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	t.Cleanup(func() { child.Process.Kill(); child.Wait() })
	_, err = io.ReadFull(out, make([]byte, len(hanging)))
	require.NoError(t, err)

	engine := newEngine(t, assemble.Config{TempDir: dir})
	_, err = engine.Build(t.Context(), request)
	require.NoError(t, err)
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	require.Len(t, left, 1, "the spool of the build that runs")

	require.NoError(t, child.Process.Kill())
	child.Wait()
	_, err = newEngine(t, assemble.Config{TempDir: dir}).Build(t.Context(), request)
	require.NoError(t, err)
	left, err = filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

const hangIn, hangAt, hanging = "SLUICE_TEST_HANG_IN", "SLUICE_TEST_HANG_AT", "hanging\n"

// TestMain runs the tests, or in a child of TestKilledBuildLeavesNoSpool a build that stops at its
// first upload.
func TestMain(m *testing.M) {
	dir := os.Getenv(hangIn)
	if dir == "" {
		os.Exit(m.Run())
	}
	engine, err := assemble.New(assemble.Config{TempDir: dir, Transport: roundTripper(
		func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodPost {
				fmt.Print(hanging)
				<-r.Context().Done()
			}
			return http.DefaultTransport.RoundTrip(r)
		})})
	if err == nil {
		_, err = engine.Build(context.Background(), builder.Request{
			Dockerfile: []byte("FROM scratch\nCOPY a /a\n"),
			Context: fstest.MapFS{
				"a": {Data: []byte("A")},
			}, Repository: os.Getenv(hangAt) + "/hang"})
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
