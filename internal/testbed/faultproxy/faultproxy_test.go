//go:build linux

package faultproxy_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/faultproxy"
	"github.com/sluice-deploy/sluice/internal/testbed/registry"
)

var manifests = regexp.MustCompile(`^/v2/app/manifests/`)

func start(t *testing.T) (*faultproxy.Proxy, name.Tag) {
	t.Helper()
	oci := registry.Start(t, "127.0.0.1")
	p := faultproxy.Start(t, "127.0.0.1", &url.URL{Scheme: "http", Host: oci.Addr}, nil)
	tag, err := name.NewTag(p.Addr+"/app:v1", name.Insecure)
	require.NoError(t, err)
	return p, tag
}

// A registry's client sees the status that a rule gives, and nothing of it once the rule's turn is
// over.
func TestRefusals(t *testing.T) {
	t.Parallel()
	p, tag := start(t)
	for _, status := range []int{401, 403, 409, 429, 503} {
		img, err := random.Image(1000, 1)
		require.NoError(t, err)
		p.Break(faultproxy.Rule{Method: "PUT", Path: manifests, Status: status, Times: 1,
			Header: http.Header{"Retry-After": {"1"}},
			Body:   `{"errors": [{"code": "DENIED", "message": "by rule"}]}`})
		err = remote.Write(tag, img, remote.WithRetryStatusCodes())
		var told *transport.Error
		require.ErrorAs(t, err, &told)
		require.Equal(t, status, told.StatusCode)
		require.ErrorContains(t, err, "by rule")
		require.NoError(t, remote.Write(tag, img))
	}
}

func TestBytesAreCounted(t *testing.T) {
	t.Parallel()
	p, tag := start(t)
	img, err := random.Image(100_000, 1)
	require.NoError(t, err)
	require.NoError(t, remote.Write(tag, img))
	layers, err := img.Layers()
	require.NoError(t, err)
	size, err := layers[0].Size()
	require.NoError(t, err)
	config, err := img.RawConfigFile()
	require.NoError(t, err)
	manifest, err := img.RawManifest()
	require.NoError(t, err)
	var sent int64
	for _, r := range p.Requests() {
		sent += r.Sent
	}
	require.Equal(t, size+int64(len(config)+len(manifest)), sent)
}

// held is an answer whose Close waits, so that the proxy is busy with it after the client has it.
type held struct {
	io.Reader
	release chan struct{}
}

func (h held) Close() error { <-h.release; return nil }

type transportFunc func(*http.Request) (*http.Response, error)

func (f transportFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestHeardAnswerIsListed(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	p := faultproxy.Start(t, "127.0.0.1", &url.URL{Scheme: "http", Host: "server"},
		transportFunc(func(r *http.Request) (*http.Response, error) {
			_, err := io.Copy(io.Discard, r.Body)
			return &http.Response{StatusCode: http.StatusCreated, Request: r,
				Header: http.Header{"Content-Length": {"4"}}, ContentLength: 4,
				Body: held{strings.NewReader("made"), release}}, err
		}))
	t.Cleanup(func() { close(release) }) // before the proxy ends
	resp, err := http.Post("http://"+p.Addr+"/a?b", "text/plain", strings.NewReader("please"))
	require.NoError(t, err)
	got, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, "made", string(got))
	require.Equal(t, []faultproxy.Request{{Method: "POST", Path: "/a?b",
		Status: http.StatusCreated, Sent: 6, Received: 4}}, p.Requests())
}

// A manifest that was swapped on its way to the client has another digest, which the
// client names.
func TestSwappedManifest(t *testing.T) {
	t.Parallel()
	p, tag := start(t)
	good, err := random.Image(1000, 1)
	require.NoError(t, err)
	require.NoError(t, remote.Write(tag, good))
	other, err := random.Image(1000, 1)
	require.NoError(t, err)
	swapped, err := other.RawManifest()
	require.NoError(t, err)
	digest, err := good.Digest()
	require.NoError(t, err)
	p.Break(faultproxy.Rule{Method: "GET", Path: manifests, Change: func(r *http.Response) error {
		r.Body = io.NopCloser(bytes.NewReader(swapped))
		r.ContentLength = int64(len(swapped))
		r.Header.Del("Content-Length")
		return nil
	}})
	_, err = remote.Get(tag.Context().Digest(digest.String()))
	require.ErrorContains(t, err, "does not match")
}

// A client that is killed before its request is forwarded leaves nothing, after it, the thing.
func TestKilledClient(t *testing.T) {
	t.Parallel()
	p, tag := start(t)
	img, err := random.Image(1000, 1)
	require.NoError(t, err)
	manifest, err := img.RawManifest()
	require.NoError(t, err)
	require.NoError(t, remote.Write(tag, img)) // its blobs
	put := func(tag string) *exec.Cmd {
		cmd := exec.Command(testbed.NeedProgram(t, "curl", "curl"), "-s", "-X", "PUT",
			"--data-binary", "@-", "-H",
			"Content-Type: application/vnd.docker.distribution.manifest.v2+json",
			"http://"+p.Addr+"/v2/app/manifests/"+tag)
		cmd.Stdin = bytes.NewReader(manifest)
		return cmd
	}
	for _, c := range []struct {
		tag  string
		rule func(kill func()) faultproxy.Rule
		left bool
	}{
		{"before", func(kill func()) faultproxy.Rule {
			return faultproxy.Rule{Method: "PUT", Before: kill, Status: http.StatusGatewayTimeout}
		}, false},
		{"after", func(kill func()) faultproxy.Rule {
			return faultproxy.Rule{Method: "PUT", After: kill}
		}, true},
	} {
		cmd := put(c.tag)
		began := make(chan struct{})
		p.Break(c.rule(func() {
			<-began // Process is set
			if err := cmd.Process.Kill(); err != nil {
				t.Error(err)
			}
		}))
		require.NoError(t, cmd.Start())
		close(began)
		var ended *exec.ExitError
		require.True(t, errors.As(cmd.Wait(), &ended))
		require.Equal(t, -1, ended.ExitCode(), "the client was killed")
		p.Break()
		_, err := remote.Head(tag.Context().Tag(c.tag))
		require.Equal(t, c.left, err == nil, "%v", err)
	}
}
