package promote_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/atomicfile"
	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/boltjournal"
	"github.com/sluice-deploy/sluice/promote/filearchive"
)

// TestMain is the program that TestKilledProcess kills when the environment names a directory to
// work in.
func TestMain(m *testing.M) {
	if dir := os.Getenv("PROMOTE_TEST_DEPLOY_FOR_EVER"); dir != "" {
		fmt.Fprintln(os.Stderr, deployForEver(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// fileDeployer runs a digest by writing it into a file.
type fileDeployer struct {
	dir  string
	says io.Writer // is told of each Deploy before it acts
}

func (f fileDeployer) name(t promote.Target) string {
	return filepath.Join(f.dir, "runs-"+t.Environment)
}

func (f fileDeployer) Deploy(_ context.Context, d promote.Deployment) error {
	fmt.Fprintln(f.says, "deploying")
	return atomicfile.Write(f.name(d.Target), []byte(d.Digest), 0o600)
}

func (f fileDeployer) Remove(_ context.Context, d promote.Deployment) error {
	if err := os.Remove(f.name(d.Target)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func openInDir(dir string, says io.Writer) (*promote.Promoter, *boltjournal.Journal, error) {
	j, err := boltjournal.Open(context.Background(),
		boltjournal.Config{Path: filepath.Join(dir, "journal")})
	if err != nil {
		return nil, nil, err
	}
	archive, err := filearchive.Open(filearchive.Config{Dir: filepath.Join(dir, "archive")})
	if err != nil {
		return nil, nil, err
	}
	p, err := promote.New(promote.Config{Journal: j, Archive: archive,
		Deployer: fileDeployer{dir, says}})
	return p, j, err
}

// deployForEver deploys v1, v2, v3 and v1 again to test and says so after each: an acknowledgement.
// After each second one it archives the older entries.
func deployForEver(dir string) error {
	ctx := context.Background()
	p, _, err := openInDir(dir, os.Stdout)
	if err != nil {
		return err
	}
	for n := 1; n <= 3; n++ {
		if err := p.Bind(ctx, binding(fmt.Sprint("v", n), digest(n))); err != nil {
			return err
		}
	}
	for n := 0; ; n++ {
		d, err := p.Promote(ctx, request("test", fmt.Sprint("v", n%3+1)))
		if err != nil {
			return err
		}
		fmt.Println("done", d.Generation, d.Digest)
		if n%2 == 1 {
			fmt.Println("archiving")
			_, err := p.Archive(ctx, promote.ArchiveRequest{Cluster: d.Cluster, Keep: 3, Actor: "a"})
			if err != nil {
				return err
			}
		}
	}
}

// verifyFiles reads the segments and the rest of the journal.
func verifyFiles(t *testing.T, dir string, j promote.Journal) {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(dir, "archive", "segment-*"))
	require.NoError(t, err)
	require.NotEmpty(t, segments)
	var text bytes.Buffer
	for _, name := range segments { // sorted
		segment, err := os.ReadFile(name)
		require.NoError(t, err)
		text.Write(segment)
	}
	require.NoError(t, promote.Export(t.Context(), &text, j))
	_, err = promote.Verify(&text)
	require.NoError(t, err)
}

// A process is killed with SIGKILL while it deploys and archives, again and again on the same files: each
// acknowledged change is there, each target runs its current digest, and the next process goes on.
func TestKilledProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	recovered := 0
	for round := range 12 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "PROMOTE_TEST_DEPLOY_FOR_EVER="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		lines := bufio.NewScanner(out)
		var generation uint64
		var acknowledged promote.Digest
		for n := 0; lines.Scan(); n++ {
			if done, ok := strings.CutPrefix(lines.Text(), "done "); ok {
				_, err := fmt.Sscan(done, &generation, &acknowledged)
				require.NoError(t, err)
			}
			// after an acknowledgement, in the deployer, or in an archiving
			if n == 3+round {
				require.NoError(t, cmd.Process.Kill())
			}
		}
		require.Error(t, cmd.Wait(), "it was killed")

		p, j, err := openInDir(dir, io.Discard)
		require.NoError(t, err)
		ended, err := p.Recover(t.Context())
		require.NoError(t, err)
		recovered += len(ended)
		current, err := p.Current(t.Context())
		require.NoError(t, err)
		require.Len(t, current, 1)
		require.GreaterOrEqual(t, current[0].Generation, generation)
		if current[0].Generation == generation {
			require.Equal(t, acknowledged, current[0].Digest)
		}
		runs, err := os.ReadFile(fileDeployer{dir: dir}.name(in("test")))
		require.NoError(t, err)
		require.Equal(t, string(current[0].Digest), string(runs))
		history, err := p.History(t.Context(), promote.Target{})
		require.NoError(t, err)
		for i, e := range history {
			require.Equal(t, uint64(i+1), e.Seq, "an entry is missing, or there twice")
		}
		_, err = p.Archive(t.Context(), promote.ArchiveRequest{Cluster: "web", Keep: 3, Actor: "a"})
		require.NoError(t, err)
		verifyFiles(t, dir, j)
		require.NoError(t, j.Close())
	}
	require.NotZero(t, recovered, "no kill left a change open: this test shows nothing")
	t.Logf("%d changes that the kills left open were brought to an end", recovered)
}
