//go:build linux

package builds_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/assemble"
	"github.com/sluice-deploy/sluice/builder/builds"
	"github.com/sluice-deploy/sluice/builder/builds/filestore"
	"github.com/sluice-deploy/sluice/internal/testbed/registry"
)

const killed = "BUILDS_TEST_DIR"

// TestMain is the program that TestKilledProcess kills when the environment names a directory to
// work in.
func TestMain(m *testing.M) {
	if dir := os.Getenv(killed); dir != "" {
		fmt.Fprintln(os.Stderr, buildUntilKilled(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func openIn(ctx context.Context, dir, owner string, e builder.Engine) (*builds.Builds, error) {
	store, err := filestore.Open(ctx, filestore.Config{Dir: filepath.Join(dir, "store"),
		Poll: time.Millisecond})
	if err != nil {
		return nil, err
	}
	return builds.New(builds.Config{Journal: store, Logs: store, Owners: store, Owner: owner,
		Engine: e, Poll: time.Millisecond, Context: func(context.Context, builds.ContextRequest) (
			builds.Context, error) {
			return builds.Context{Files: fstest.MapFS{"a": {Data: []byte("the service"),
				Mode: 0o644}}}, nil
		}})
}

// stuck stops in mid-build: the layer is in the spool, and the image not in the registry.
type stuck struct{ builder.Engine }

func (s stuck) Build(ctx context.Context, r builder.Request) (builder.Result, error) {
	r.Events = func(e builder.Event) {
		if e.Kind == builder.EventLayer {
			fmt.Println("in mid-build")
			select {}
		}
	}
	return s.Engine.Build(ctx, r)
}

func buildUntilKilled(dir string) error {
	engine, err := assemble.New(assemble.Config{TempDir: filepath.Join(dir, "spool")})
	if err != nil {
		return err
	}
	b, err := openIn(context.Background(), dir, "killed", stuck{engine})
	if err != nil {
		return err
	}
	return b.Run(context.Background())
}

// TestKilledProcess kills the process that carries a build out with SIGKILL, and lets another one
// take it over.
func TestKilledProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	spool := filepath.Join(dir, "spool")
	require.NoError(t, os.Mkdir(spool, 0o700))
	oci := registry.Start(t)
	engine, err := assemble.New(assemble.Config{TempDir: spool})
	require.NoError(t, err)
	b, err := openIn(t.Context(), dir, "living", engine)
	require.NoError(t, err)
	o := order("a")
	o.Repository = oci.Addr + "/hello_web"
	_, err = b.Submit(t.Context(), o)
	require.NoError(t, err)

	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), killed+"="+dir)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, child.Process.Kill())
	child.Wait()
	require.NoError(t, err)
	require.Equal(t, "in mid-build\n", line)
	left, err := os.ReadDir(spool)
	require.NoError(t, err)
	require.NotEmpty(t, left, "the process was killed in mid-build")
	got, err := b.Get(t.Context(), "a")
	require.NoError(t, err)
	require.Equal(t, builds.StateRunning, got.State)

	run(t, b)
	got = wait(t, b, "a")
	require.Equal(t, builds.StateSucceeded, got.State, "%+v", got.Failure)
	require.Equal(t, 2, got.Tries)
	require.Equal(t, "living", got.Owner)
	require.Equal(t, builds.Gap, got.Log.Verdict, "the end of the first attempt's log is not known")
	left, err = os.ReadDir(spool)
	require.NoError(t, err)
	require.Empty(t, left)
	text, _ := logOf(t, b, "a")
	require.Contains(t, text, "attempt 1 by killed\n")
	require.Contains(t, text, "attempt 2 by living\n")
	require.Contains(t, text, got.Result.Digest)
}
