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

	cancelled, err := p.CancelBuild(t.Context(), third.ID, "bob", "")
	require.NoError(t, err)
	require.Equal(t, platform.BuildCancelled, cancelled.State, "one that waits ends at once")
	require.Equal(t, "bob", cancelled.CancelledBy)
	_, err = p.CancelBuild(t.Context(), first.ID, "bob", "wrong base")
	require.NoError(t, err)
	ended, err := s.Ended(t.Context(), first.ID)
	require.NoError(t, err)
	require.Equal(t, platform.BuildCancelled, ended.State)
	require.Equal(t, "cancelled by bob: wrong base", ended.Error)
	require.Equal(t, "wrong base", ended.Reason)
	for _, b := range []platform.Build{first, third} {
		_, err = p.CancelBuild(t.Context(), b.ID, "bob", "")
		require.ErrorIs(t, err, platform.ErrConflict)
		eventually(t, func() bool { return len(kept(t, s, b.ID)) == 0 }, "its source is not kept")
	}
	for _, actor := range []string{"", "a\nb"} {
		_, err = p.CancelBuild(t.Context(), second.ID, actor, "")
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
	_, err = p.CancelBuild(t.Context(), second.ID, "eve", "")
	require.NoError(t, err)
	ended, err = s.Ended(t.Context(), second.ID)
	require.NoError(t, err)
	require.Equal(t, "cancelled by eve", ended.Error)
	require.Equal(t, 2, ended.Tries)
	require.Equal(t, []string{"submitted", "started", "requeued", "started", "cancelling",
		"cancelled"}, kinds(t, p, second.ID))
}

func kinds(t *testing.T, p *platform.Platform, build string) (list []string) {
	t.Helper()
	events, err := p.BuildEvents(t.Context(), build, 0)
	require.NoError(t, err)
	for _, e := range events {
		list = append(list, e.Kind)
	}
	return list
}

// TestABuildUnderAnIDOfTheCaller: the same request again is the same build, also after a restart
// and although its source is gone; another one is refused.
func TestABuildUnderAnIDOfTheCaller(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Config{Dir: t.TempDir()})
	request := platform.BuildRequest{ID: "Release-7.1", Cluster: "hello_web", Version: "v1",
		Template: "go-static", Source: s.Upload(t, "hello_web", "v1"), Team: "web", Actor: "ann"}
	const callers = 4
	ids := make(chan string, callers) // one of each
	for range callers {
		go func() {
			b, err := s.Platform.SubmitBuild(t.Context(), request)
			if err != nil {
				t.Error(err)
			}
			ids <- b.ID
		}()
	}
	for range callers {
		require.Equal(t, request.ID, <-ids)
	}
	first, err := s.Ended(t.Context(), request.ID)
	require.NoError(t, err)
	require.Equal(t, platform.BuildSucceeded, first.State, first.Error)
	require.Equal(t, "web", first.Team)
	require.Equal(t, "complete", string(first.Log.Verdict))
	all, err := s.Platform.Builds(t.Context())
	require.NoError(t, err)
	require.Len(t, all, 1)

	other := request
	other.Version = "v2"
	_, err = s.Platform.SubmitBuild(t.Context(), other)
	require.ErrorIs(t, err, platform.ErrConflict)
	require.ErrorContains(t, err, "take another id")
	for _, id := range []string{"b000007", "../x", "a b"} {
		other.ID = id
		_, err = s.Platform.SubmitBuild(t.Context(), other)
		require.ErrorIs(t, err, platform.ErrInvalid, id)
	}
	_, err = s.Platform.Build(t.Context(), "b000001")
	require.ErrorIs(t, err, platform.ErrNotFound, "it has the id of the caller")
	second := s.MustBuild(t, "greet_api", "v1")
	older, more, err := s.Platform.BuildsAfter(t.Context(), second.ID, 10, "",
		func(platform.Build) bool { return true })
	require.NoError(t, err)
	require.False(t, more)
	require.Equal(t, []platform.Build{first}, older, "in the order of submission")

	require.NoError(t, s.Platform.DeleteSource(request.Source))
	s.Leave()
	s = servertest.Start(t, servertest.Config{Dir: s.Dir})
	request.Actor = "bob"
	again, err := s.Platform.SubmitBuild(t.Context(), request)
	require.NoError(t, err)
	require.Equal(t, first, again)
	require.Equal(t, []string{"submitted", "started", "succeeded"}, kinds(t, s.Platform, again.ID))
}

// TestTheLatestBuildOfAClusterCounts: with the policy latestOnly a newer build takes the place of
// one that runs and of one that waits.
func TestTheLatestBuildOfAClusterCounts(t *testing.T) {
	t.Parallel()
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
	}))
	t.Cleanup(silent.Close) // after the server, whose builds wait for it
	s := servertest.Start(t, servertest.Config{})
	require.NoError(t, s.Platform.PutSource("site", bytes.NewReader(archive(t,
		map[string]string{"site/index.html": "x", "envs/test/f": "x"}))))
	base := silent.Listener.Addr().(*net.TCPAddr).String() + "/base@sha256:" +
		"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	submit := func(id string) platform.Build {
		b, err := s.Platform.SubmitBuild(t.Context(), platform.BuildRequest{ID: id,
			Cluster: "help_pages", Version: id, Template: "static-site", Source: "site",
			Params: map[string]string{"BASE_IMAGE": base}, Policy: "latestOnly", Actor: "ann"})
		require.NoError(t, err)
		return b
	}
	submit("one")
	eventually(t, func() bool {
		b, err := s.Platform.Build(t.Context(), "one")
		return err == nil && b.State == platform.BuildRunning
	}, "it runs")
	submit("two")
	for _, id := range []string{"one", "two"} {
		if id == "two" {
			submit("three")
		}
		ended, err := s.Ended(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, platform.BuildSuperseded, ended.State)
		require.Contains(t, ended.Error, "superseded by build ")
		_, err = s.Platform.CancelBuild(t.Context(), id, "bob", "")
		require.ErrorIs(t, err, platform.ErrConflict)
	}
	_, err := s.Platform.CancelBuild(t.Context(), "three", "bob", "")
	require.NoError(t, err)
	ended, err := s.Ended(t.Context(), "three")
	require.NoError(t, err)
	require.Equal(t, platform.BuildCancelled, ended.State)
}

func kept(t *testing.T, s *servertest.Server, build string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(s.Dir, "builds", build+".source"))
	require.NoError(t, err)
	return found
}
