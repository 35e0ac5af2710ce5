package assemble_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/assemble"
)

// TestRegistryFailures builds for a registry that answers every request with one status.
func TestRegistryFailures(t *testing.T) {
	t.Parallel()
	build := func(t *testing.T, host string) *builder.Failure {
		engine, err := assemble.New(assemble.Config{TempDir: t.TempDir()})
		require.NoError(t, err)
		_, err = engine.Build(t.Context(), builder.Request{
			Dockerfile: []byte("FROM scratch\nCOPY a /a\n"), Repository: host + "/hello_web",
			Context: fstest.MapFS{"a": {Data: []byte("a")}}})
		require.Error(t, err)
		return builder.FailureOf(err)
	}
	for status, want := range map[int]builder.Reason{
		http.StatusUnauthorized:   builder.ReasonRegistryDenied,
		http.StatusForbidden:      builder.ReasonRegistryDenied,
		http.StatusNotImplemented: builder.ReasonRegistryAway,
		http.StatusConflict:       builder.ReasonRegistryRefused,
	} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(
				func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path != "/v2/" { // the greeting; the answer is to the build
						w.WriteHeader(status)
					}
				}))
			defer server.Close()
			got := build(t, strings.TrimPrefix(server.URL, "http://"))
			require.Equal(t, want, got.Reason, "%v", got)
			require.Equal(t, want == builder.ReasonRegistryAway, got.Retryable)
			require.Len(t, got.Evidence, 1)
			require.NotEmpty(t, got.Hint)
		})
	}
	t.Run("away", func(t *testing.T) {
		t.Parallel()
		server := httptest.NewServer(http.NotFoundHandler())
		server.Close()
		got := build(t, strings.TrimPrefix(server.URL, "http://"))
		require.Equal(t, builder.ReasonRegistryAway, got.Reason, "%v", got)
		require.True(t, got.Retryable)
	})
}
