package boltjournal_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/soak"
	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/boltjournal"
)

// TestDamagedFile flips bits of a file, cuts it off, and fills pages with zeros. Each file is
// refused with its name, or read with every entry either as it was or named as damaged; no process
// dies, and the file can be opened again.
func TestDamagedFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "good")
	j := open(t, path)
	p, err := promote.New(promote.Config{Journal: j, Deployer: willing{}})
	require.NoError(t, err)
	for n := range 60 {
		require.NoError(t, p.Bind(t.Context(), promote.Binding{
			Cluster: fmt.Sprint("c", n%7), Version: fmt.Sprint("v", n), Actor: "ci",
			Digest:     promote.Digest(fmt.Sprintf("sha256:%064x", n)),
			Repository: "registry:5000/web"}))
	}
	want, err := j.Read(t.Context(), 0)
	require.NoError(t, err)
	require.NoError(t, j.Close())
	good, err := os.ReadFile(path)
	require.NoError(t, err)

	random := rand.New(rand.NewPCG(16, 9))
	refused := 0
	for n := range soak.Count(200, 1000) {
		bad, how := append([]byte(nil), good...), ""
		switch n % 5 {
		case 3:
			at := random.IntN(len(bad))
			bad, how = bad[:at], fmt.Sprint("cut off at ", at)
		case 4:
			page := random.IntN(len(bad)/4096) * 4096
			clear(bad[page : page+4096])
			how = fmt.Sprint("zeros at ", page)
		default:
			at, bit := random.IntN(len(bad)), random.IntN(8)
			bad[at] ^= 1 << bit
			how = fmt.Sprintf("bit %d of byte %d", bit, at)
		}
		path := filepath.Join(dir, fmt.Sprint(n))
		require.NoError(t, os.WriteFile(path, bad, 0o600))
		for range 2 { // the second time the lock is free again
			j, err := boltjournal.Open(t.Context(), boltjournal.Config{Path: path})
			if err != nil {
				require.ErrorContains(t, err, path, how)
				require.NotContains(t, err.Error(), "another process", how)
				refused++
				continue
			}
			heads := map[string]promote.Head{}
			entries, err := j.Read(t.Context(), 0)
			if err != nil {
				require.ErrorIs(t, err, promote.ErrDamaged, how)
			}
			for i, e := range entries {
				head, err := e.After(heads[e.Cluster])
				if e.Damage != "" || err != nil {
					break // named by the journal, or by the chain
				}
				heads[e.Cluster] = head
				require.Equal(t, want[i], e, how)
			}
			require.NoError(t, j.Close(), how)
		}
		require.NoError(t, os.Remove(path))
	}
	require.Greater(t, refused, 20)
}
