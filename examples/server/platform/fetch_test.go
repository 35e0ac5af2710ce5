package platform_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/source"
	"github.com/sluice-deploy/sluice/examples/server/platform"
	"github.com/sluice-deploy/sluice/examples/server/servertest"
	"github.com/sluice-deploy/sluice/internal/testbed/rsync"
)

// TestBuildsOfFetchedSources builds the same files as an upload, from an rsync daemon and as an
// archive of a web server: the images are the same.
func TestBuildsOfFetchedSources(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Config{Fetch: []string{"rsync", "archive"}})
	uploaded := s.MustBuild(t, "hello_web", "v1")
	files := filepath.Join(s.Dir, "sources", "hello_web-v1")
	var packed bytes.Buffer
	w := tar.NewWriter(&packed)
	require.NoError(t, w.AddFS(os.DirFS(files)))
	require.NoError(t, w.Close())
	site := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = rw.Write(packed.Bytes())
	}))
	t.Cleanup(site.Close)
	daemon, err := url.Parse(rsync.Start(t, files).URL)
	require.NoError(t, err)
	port, err := strconv.Atoi(daemon.Port())
	require.NoError(t, err)
	sum := sha256.Sum256(packed.Bytes())
	request := func(version string, from source.Source) platform.BuildRequest {
		return platform.BuildRequest{Cluster: "hello_web", Version: version,
			Template: "go-static", From: &from, Actor: "ann"}
	}
	build := func(version string, from source.Source) platform.Build {
		b, err := s.Platform.SubmitBuild(t.Context(), request(version, from))
		require.NoError(t, err)
		b, err = s.Ended(t.Context(), b.ID)
		require.NoError(t, err)
		return b
	}
	ofRsync := source.Source{Rsync: &source.Rsync{Host: daemon.Hostname(), Port: port,
		Module: "code"}}
	ofArchive := source.Source{Archive: &source.Archive{URL: site.URL + "/v1.tar",
		SHA256: hex.EncodeToString(sum[:])}}
	for _, from := range []source.Source{ofRsync, ofArchive} {
		b := build("v1", from)
		require.Equal(t, platform.BuildSucceeded, b.State, b.Error)
		require.Equal(t, uploaded.Digest, b.Digest, from)
		require.Equal(t, from.Kind(), b.Identity.Kind)
		require.Equal(t, []string{"submitted", "started", "fetched", "succeeded"},
			kinds(t, s.Platform, b.ID))
	}
	ofArchive.Archive.SHA256 = strings.Repeat("0", 64)
	other := build("v2", ofArchive)
	require.Equal(t, platform.BuildFailed, other.State)
	require.Equal(t, builder.ReasonSourceRefused, other.Failure.Reason)
	require.NotContains(t, other.Error, s.Dir)
	left, err := filepath.Glob(filepath.Join(s.Dir, "builds", "spool", "spool-*", "fetch-*"))
	require.NoError(t, err)
	require.Empty(t, left, "nothing that was fetched is left")

	for want, bad := range map[string]source.Source{
		"-fetch git": {Git: &source.Git{URL: "https://example.com/x", Ref: "main"}},
		"is empty":   {},
		"no secrets": {Rsync: &source.Rsync{Host: "example.com", Module: "code", User: "u",
			Secret: "s"}},
		"rsync.path": {Rsync: &source.Rsync{Host: "example.com", Module: "code", Path: "../x"}},
	} {
		_, err := s.Platform.SubmitBuild(t.Context(), request("v3", bad))
		require.ErrorIs(t, err, platform.ErrInvalid)
		require.ErrorContains(t, err, want)
	}
	both := request("v3", ofRsync)
	both.Source = "hello_web-v1"
	_, err = s.Platform.SubmitBuild(t.Context(), both)
	require.ErrorIs(t, err, platform.ErrInvalid)
	require.ErrorContains(t, err, "one of the two")
}
