package boltjournal_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/boltjournal"
	"github.com/sluice-deploy/sluice/promote/filearchive"
)

// machine is a Deployer that keeps the digest of each target.
type machine struct {
	mu   sync.Mutex
	runs map[promote.Target]promote.Digest
}

func (m *machine) Deploy(_ context.Context, d promote.Deployment) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.runs[d.Target] = d.Digest
	return nil
}

func (m *machine) Remove(_ context.Context, d promote.Deployment) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.runs, d.Target)
	return nil
}

// disk is a small file system with a journal and the segments of an archive.
type disk struct {
	*testing.T
	dir      string
	journal  *boltjournal.Journal
	promoter *promote.Promoter
	machine  *machine
	// the versions that were bound and the deployments that have ended, as was acknowledged
	versions    map[string]bool
	deployments map[string]promote.Deployment // by task
	refused     int
}

func newDisk(t *testing.T) *disk {
	testbed.NeedRoot(t, "a file system of its own")
	d := &disk{T: t, dir: t.TempDir(), versions: map[string]bool{},
		machine:     &machine{runs: map[promote.Target]promote.Digest{}},
		deployments: map[string]promote.Deployment{}}
	require.NoError(t, syscall.Mount("tmpfs", d.dir, "tmpfs", 0, "size=4m"))
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(d.dir, syscall.MNT_DETACH)) })
	d.open()
	return d
}

func (d *disk) open() {
	d.journal = open(d.T, filepath.Join(d.dir, "journal"))
	archive, err := filearchive.Open(filearchive.Config{Dir: filepath.Join(d.dir, "segments")})
	require.NoError(d, err)
	d.promoter, err = promote.New(promote.Config{Journal: d.journal, Archive: archive,
		Deployer: d.machine, Retry: time.Microsecond})
	require.NoError(d, err)
	d.Cleanup(func() { require.NoError(d, d.promoter.Close(context.Background())) })
}

// fill takes all the room that is left; free gives it back.
func (d *disk) fill() {
	f, err := os.Create(filepath.Join(d.dir, "other"))
	require.NoError(d, err)
	_, err = io.Copy(f, endless{})
	require.ErrorIs(d, err, syscall.ENOSPC)
	require.NoError(d, f.Close())
}

func (d *disk) free() { require.NoError(d, os.Remove(filepath.Join(d.dir, "other"))) }

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// release binds a version and deploys it for a task of its own.
func (d *disk) release(n int) {
	version, task := fmt.Sprint("v", n), fmt.Sprint("t", n)
	digest := promote.Digest("sha256:" + strings.Repeat(fmt.Sprintf("%04x", n), 16))
	if !d.took(d.promoter.Bind(d.Context(), promote.Binding{Cluster: "web", Version: version,
		Digest: digest, Repository: "registry:5000/web", Actor: "ci"})) {
		return
	}
	d.versions[version] = true
	deployment, err := d.promoter.Promote(d.Context(), promote.Request{Version: version,
		Target: promote.Target{Cluster: "web", Environment: "test", Task: task},
		Expect: promote.None, Actor: "ann", Key: task, Reason: strings.Repeat("why ", 100)})
	if d.took(err) {
		d.deployments[task] = deployment
	}
}

// took reports whether the journal has taken a request; if not, the disk was full, and the error
// says what to do.
func (d *disk) took(err error) bool {
	if err == nil {
		return true
	}
	require.ErrorIs(d, err, syscall.ENOSPC)
	require.NotErrorIs(d, err, promote.ErrDamaged)
	require.ErrorContains(d, err, filepath.Join(d.dir, "journal"))
	require.ErrorContains(d, err, "make room")
	d.refused++
	return false
}

// keeps requires everything that was acknowledged, and a journal that is whole.
func (d *disk) keeps() {
	d.Helper()
	_, err := d.promoter.Recover(d.Context())
	require.NoError(d, err)
	open, err := d.promoter.Open(d.Context())
	require.NoError(d, err)
	require.Empty(d, open)
	bindings, err := d.promoter.Bindings(d.Context(), "web")
	require.NoError(d, err)
	bound := map[string]bool{}
	for _, b := range bindings {
		bound[b.Version] = true
	}
	for version := range d.versions {
		require.True(d, bound[version], version)
	}
	current, err := d.promoter.Current(d.Context())
	require.NoError(d, err)
	runs, now := map[promote.Target]promote.Digest{}, map[string]promote.Deployment{}
	for _, c := range current {
		require.Empty(d, c.Doubt)
		runs[c.Target], now[c.Task] = c.Digest, c
	}
	require.Equal(d, d.machine.runs, runs)
	for task, deployment := range d.deployments {
		require.Equal(d, deployment, now[task])
	}
}

// A full disk refuses entries and loses none that was acknowledged. Once there is room the same
// journal goes on, and a change whose end could not be written down is brought to an end.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	d := newDisk(t)
	n := 0
	for ; n < 5; n++ {
		d.release(n)
	}
	require.Zero(t, d.refused)
	for range 3 {
		d.fill()
		for before := d.refused; d.refused < before+5; n++ {
			require.Less(t, n, 5000)
			d.release(n)
		}
		d.free()
		d.keeps()
		d.release(n)
		require.Contains(t, d.deployments, fmt.Sprint("t", n), "there is room again")
		n++
	}
	for i := range n { // those that were refused come again
		d.release(i)
	}
	require.Len(t, d.deployments, n)
	d.keeps()
	require.NoError(t, d.promoter.Close(t.Context()))
	require.NoError(t, d.journal.Close())
	d.open()
	d.keeps()
	var export bytes.Buffer
	require.NoError(t, promote.Export(t.Context(), &export, d.journal))
	_, err := promote.Verify(&export)
	require.NoError(t, err)
}

// An archive on a full disk keeps the entries in the journal, leaves no part of a segment, and is
// asked again once there is room.
func TestArchiveOnFullDisk(t *testing.T) {
	t.Parallel()
	d := newDisk(t)
	for n := range 20 {
		d.release(n)
	}
	require.Zero(t, d.refused)
	before, err := d.journal.Read(t.Context(), 0)
	require.NoError(t, err)
	request := promote.ArchiveRequest{Cluster: "web", Keep: 2, Actor: "night"}
	d.fill()
	for range 3 {
		_, err = d.promoter.Archive(t.Context(), request)
		require.ErrorIs(t, err, syscall.ENOSPC)
		require.ErrorContains(t, err, filepath.Join(d.dir, "segments"))
		require.ErrorContains(t, err, "make room")
		after, err := d.journal.Read(t.Context(), 0)
		require.NoError(t, err)
		require.Equal(t, before, after)
		left, err := os.ReadDir(filepath.Join(d.dir, "segments"))
		require.NoError(t, err)
		require.Empty(t, left)
	}
	d.keeps()
	d.free()
	archived, err := d.promoter.Archive(t.Context(), request)
	require.NoError(t, err)
	require.Equal(t, len(before)-2, archived)
	d.release(20)
	d.keeps()
	require.NoError(t, d.promoter.Close(t.Context()))
	require.NoError(t, d.journal.Close())
	d.open()
	d.keeps()
}
