package platform_test

import (
	"bytes"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/server/platform"
	"github.com/sluice-deploy/sluice/examples/server/servertest"
)

// TestBuildsSideBySide holds builds with a base image whose registry does not answer.
func TestBuildsSideBySide(t *testing.T) {
	t.Parallel()
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
	}))
	defer silent.Close()
	s := servertest.Start(t, servertest.Config{})
	p := s.Platform
	require.NoError(t, p.PutSource("site", bytes.NewReader(archive(t,
		map[string]string{"site/index.html": "x", "envs/test/f": "x"}))))
	base := silent.Listener.Addr().(*net.TCPAddr).String() + "/base@sha256:" +
		"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	submit := func(version string) platform.Build {
		b, err := p.SubmitBuild(t.Context(), platform.BuildRequest{
			Cluster: "help_pages", Version: version, Template: "static-site", Source: "site",
			Params: map[string]string{"BASE_IMAGE": base}, Actor: "ann",
		})
		require.NoError(t, err)
		return b
	}
	state := func(b platform.Build) platform.Build {
		b, err := p.Build(t.Context(), b.ID)
		require.NoError(t, err)
		return b
	}
	first, second, third := submit("v1"), submit("v2"), submit("v3")
	eventually(t, func() bool {
		return state(first).State == platform.BuildRunning &&
			state(second).State == platform.BuildRunning
	}, "two run at a time")
	require.Equal(t, platform.BuildQueued, state(third).State)

	cancelled, err := p.CancelBuild(t.Context(), third.ID, "bob")
	require.NoError(t, err)
	require.Equal(t, platform.BuildCancelled, cancelled.State, "one that waits ends at once")
	require.Equal(t, "bob", cancelled.CancelledBy)
	_, err = p.CancelBuild(t.Context(), first.ID, "bob")
	require.NoError(t, err)
	ended, err := s.Ended(t.Context(), first.ID)
	require.NoError(t, err)
	require.Equal(t, platform.BuildCancelled, ended.State)
	require.Equal(t, "cancelled by bob", ended.Error)
	for _, b := range []platform.Build{first, third} {
		_, err = p.CancelBuild(t.Context(), b.ID, "bob")
		require.ErrorIs(t, err, platform.ErrConflict)
		eventually(t, func() bool { return len(kept(t, s, b.ID)) == 0 }, "its source is not kept")
	}
	for _, actor := range []string{"", "a\nb"} {
		_, err = p.CancelBuild(t.Context(), second.ID, actor)
		require.ErrorIs(t, err, platform.ErrInvalid)
	}
	require.Empty(t, state(second).CancelledBy)
	s.MustBuild(t, "hello_web", "v1") // beside the second
	require.Equal(t, platform.BuildRunning, state(second).State)

	// The next server runs the second build again, and removes the sources that ended builds have
	// left.
	s.Leave()
	stale := filepath.Join(s.Dir, "builds", third.ID+".source")
	require.NoError(t, os.MkdirAll(filepath.Join(stale, "site"), 0o755))
	require.NoError(t, os.MkdirAll(filepath.Join(s.Dir, "builds", "b999999.source"), 0o755))
	s = servertest.Start(t, servertest.Config{Dir: s.Dir})
	p = s.Platform
	require.Empty(t, kept(t, s, third.ID))
	require.Empty(t, kept(t, s, "b999999"))
	require.NotEmpty(t, kept(t, s, second.ID), "it runs again")
	eventually(t, func() bool {
		return state(second).State == platform.BuildRunning
	}, "it runs again")
	_, err = p.CancelBuild(t.Context(), second.ID, "eve")
	require.NoError(t, err)
	ended, err = s.Ended(t.Context(), second.ID)
	require.NoError(t, err)
	require.Equal(t, "cancelled by eve", ended.Error)
}

func kept(t *testing.T, s *servertest.Server, build string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(s.Dir, "builds", build+".source"))
	require.NoError(t, err)
	return found
}
