package registry_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/server/registry"
)

// running is a registry that listens.
type running struct {
	host  string
	close func()
}

func start(t *testing.T, cfg registry.Config) running {
	t.Helper()
	r, err := registry.Open(t.Context(), cfg)
	require.NoError(t, err)
	server := httptest.NewServer(r)
	return running{strings.TrimPrefix(server.URL, "http://"), func() {
		server.Close()
		require.NoError(t, r.Close())
	}}
}

// bytesIn is the size of all files below dir.
func bytesIn(t *testing.T, dir string) (n int64) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		n += info.Size()
		return err
	}))
	return n
}

// Not parallel: the registry's logger is process-wide.
func TestRegistryListsDeletesAndCleans(t *testing.T) {
	dir := t.TempDir()
	var kept name.Digest
	used := func(_ context.Context, repository, digest string) (string, error) {
		if repository == "broken" {
			return "", errors.New("the journal cannot be read")
		}
		if digest == kept.DigestStr() {
			return repository + " v1 is bound to it", nil
		}
		return "", nil
	}
	r := start(t, registry.Config{Dir: dir, Used: used})
	push := func(repository string) name.Digest {
		image, err := random.Image(100_000, 2)
		require.NoError(t, err)
		ref, err := name.NewTag(r.host + "/" + repository + ":latest")
		require.NoError(t, err)
		require.NoError(t, remote.Write(ref, image))
		digest, err := image.Digest()
		require.NoError(t, err)
		return ref.Digest(digest.String())
	}
	kept = push("web")
	loose := push("web") // takes the tag
	var want []string
	for n := range 12 {
		push(fmt.Sprintf("many/n%02d", n))
		want = append(want, fmt.Sprintf("many/n%02d", n))
	}
	want = append(want, "web")
	host, err := name.NewRegistry(r.host)
	require.NoError(t, err)
	all, err := remote.Catalog(t.Context(), host)
	require.NoError(t, err)
	require.Equal(t, want, all)
	page, err := remote.CatalogPage(host, "many/n03", 2)
	require.NoError(t, err)
	require.Equal(t, []string{"many/n04", "many/n05"}, page)

	err = remote.Delete(kept)
	require.ErrorContains(t, err, "web v1 is bound to it")
	require.ErrorContains(t, remote.Delete(kept.Context().Registry.Repo("broken").Digest(
		kept.DigestStr())), "journal")
	require.Equal(t, http.StatusMethodNotAllowed, do(t, http.MethodDelete, "http://"+
		r.host+"/v2/web/blobs/"+kept.DigestStr(), ""))
	require.NoError(t, remote.Delete(loose))
	_, err = remote.Head(loose)
	require.Error(t, err)

	// An upload without an end.
	require.Equal(t, http.StatusAccepted, do(t, http.MethodPost, "http://"+
		r.host+"/v2/web/blobs/uploads/", ""))
	before := bytesIn(t, filepath.Join(dir, "images"))
	uploads := filepath.Join(dir, "images/docker/registry/v2/repositories/web/_uploads")
	left, err := filepath.Glob(uploads + "/*")
	require.NoError(t, err)
	require.NotEmpty(t, left)
	r.close()

	r = start(t, registry.Config{Dir: dir, Used: used})
	defer r.close()
	left, err = filepath.Glob(uploads + "/*")
	require.NoError(t, err)
	require.Empty(t, left, "uploads that nobody can go on with")
	require.LessOrEqual(t, bytesIn(t, filepath.Join(dir, "images")), before-200_000,
		"the layers of the deleted image")
	moved, err := name.NewDigest(r.host + "/web@" + kept.DigestStr())
	require.NoError(t, err)
	image, err := remote.Image(moved)
	require.NoError(t, err)
	require.NoError(t, validate.Image(image), "an image without a tag is whole")
	push("web") // a layer that was removed does not pass for one that is there
}

func do(t *testing.T, method, url, body string) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	return response.StatusCode
}
