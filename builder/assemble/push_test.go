package assemble_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/assemble"
)

// answer is a registry's answer with a status and no content.
func answer(r *http.Request, status int) *http.Response {
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Request: r,
		Header: http.Header{}, Body: io.NopCloser(strings.NewReader(""))}
}

func tagged(host string) builder.Request {
	return builder.Request{Dockerfile: []byte("FROM scratch\nCOPY a /a\n"),
		Context:    fstest.MapFS{"a": {Data: []byte("A")}},
		Repository: host + "/app", Tag: "v1"}
}

// Some registries say "denied" instead of "not found" until the first push has made the repository.
func TestPushWhereLookingIsDenied(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden} {
		host := serve(t)
		var pushed atomic.Bool
		engine := newEngine(t, assemble.Config{Transport: roundTripper(
			func(r *http.Request) (*http.Response, error) {
				if r.Method == http.MethodPut {
					pushed.Store(true)
				}
				if r.Method == http.MethodHead && strings.HasSuffix(r.URL.Path, "/manifests/v1") &&
					!pushed.Load() {
					return answer(r, status), nil
				}
				return http.DefaultTransport.RoundTrip(r)
			})})
		if _, err := engine.Build(t.Context(), tagged(host)); err != nil {
			t.Errorf("first look answered with %d: %v", status, err)
		}
	}
}

// A registry with immutable tags refuses to write a tag again, even for the image that it names.
func TestPushToImmutableTag(t *testing.T) {
	t.Parallel()
	host := serve(t)
	var written atomic.Int64
	engine := newEngine(t, assemble.Config{Transport: roundTripper(
		func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/manifests/v1") &&
				written.Add(1) > 1 {
				return answer(r, http.StatusConflict), nil
			}
			return http.DefaultTransport.RoundTrip(r)
		})})
	for range 3 {
		if _, err := engine.Build(t.Context(), tagged(host)); err != nil {
			t.Fatal(err)
		}
	}
}

// The tag conflict is found before anything is sent.
func TestConflictCostsNoUpload(t *testing.T) {
	t.Parallel()
	host := serve(t)
	tag, err := name.NewTag(host + "/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	other, err := random.Image(100, 1)
	if err == nil {
		err = remote.Write(tag, other)
	}
	if err != nil {
		t.Fatal(err)
	}
	engine := newEngine(t, assemble.Config{Transport: roundTripper(
		func(r *http.Request) (*http.Response, error) {
			if r.Method != http.MethodGet && r.Method != http.MethodHead {
				t.Errorf("%s %s", r.Method, r.URL.Path)
			}
			return http.DefaultTransport.RoundTrip(r)
		})})
	if _, err := engine.Build(t.Context(), tagged(host)); !errors.Is(err, builder.ErrTagExists) {
		t.Errorf("error is %v, want ErrTagExists", err)
	}
}

// Another process writes the tag between this engine's look and its write, or right after it.
func TestTagTakenMeanwhile(t *testing.T) {
	t.Parallel()
	other, err := random.Image(100, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, after string // the request after which the tag is taken
		is          error
		says        string
	}{
		{"during the upload", http.MethodPatch, builder.ErrTagExists, "names"},
		{"after the write", http.MethodPut + " tag", nil, "somebody else writes the tag"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			host := serve(t)
			tag, err := name.NewTag(host + "/app:v1")
			if err != nil {
				t.Fatal(err)
			}
			var taken atomic.Bool
			engine := newEngine(t, assemble.Config{Transport: roundTripper(
				func(r *http.Request) (*http.Response, error) {
					res, err := http.DefaultTransport.RoundTrip(r)
					what := r.Method
					if strings.HasSuffix(r.URL.Path, "/manifests/v1") {
						what += " tag"
					}
					if what == c.after && taken.CompareAndSwap(false, true) {
						err = errors.Join(err, remote.Write(tag, other))
					}
					return res, err
				})})
			_, err = engine.Build(t.Context(), tagged(host))
			if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(),
				c.says) {
				t.Errorf("error is %v, want %q in it", err, c.says)
			}
		})
	}
}

// A push that breaks leaves no tag, and the next one does the rest.
func TestPushBreaks(t *testing.T) {
	t.Parallel()
	host := serve(t)
	var broken atomic.Bool
	broken.Store(true)
	engine := newEngine(t, assemble.Config{Transport: roundTripper(
		func(r *http.Request) (*http.Response, error) {
			if broken.Load() && r.Method == http.MethodPut &&
				strings.Contains(r.URL.Path, "/manifests/sha256:") {
				return answer(r, http.StatusInsufficientStorage), nil
			}
			return http.DefaultTransport.RoundTrip(r)
		})})
	_, err := engine.Build(t.Context(), tagged(host))
	if err == nil || !strings.Contains(err.Error(), "push: ") ||
		errors.Is(err, builder.ErrInvalid) {
		t.Errorf("error is %v", err)
	}
	tag, err := name.NewTag(host + "/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := remote.Head(tag); err == nil {
		t.Errorf("the tag names %s after a broken push", got.Digest)
	}
	broken.Store(false)
	res, err := engine.Build(t.Context(), tagged(host))
	if err != nil {
		t.Fatal(err)
	}
	if res.Uploaded != 0 {
		t.Errorf("second try sent %d bytes again", res.Uploaded)
	}
	fetch(t, res.Reference)
}

func TestCancelDuringPush(t *testing.T) {
	t.Parallel()
	host := serve(t)
	ctx, cancel := context.WithCancel(t.Context())
	temp := t.TempDir()
	engine := newEngine(t, assemble.Config{TempDir: temp,
		Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodPatch {
				cancel()
				<-r.Context().Done() // a registry that does not answer
				return nil, r.Context().Err()
			}
			return http.DefaultTransport.RoundTrip(r)
		})})
	if _, err := engine.Build(ctx, tagged(host)); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v, want context.Canceled", err)
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("the build left %v, %v", left, err)
	}
}

// The registry's password is in no error.
func TestErrorsHideCredentials(t *testing.T) {
	t.Parallel()
	engine := newEngine(t, assemble.Config{Transport: roundTripper(
		func(r *http.Request) (*http.Response, error) {
			return answer(r, http.StatusForbidden), nil
		}), Keychain: staticKeychain{}})
	_, err := engine.Build(t.Context(), tagged("127.0.0.1:5000"))
	if err == nil || strings.Contains(err.Error(), "pass-w0rd") {
		t.Errorf("error is %v", err)
	}
}

type staticKeychain struct{}

func (staticKeychain) Resolve(authn.Resource) (authn.Authenticator, error) {
	return &authn.Basic{Username: "ci", Password: "pass-w0rd"}, nil
}
