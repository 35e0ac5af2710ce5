package assemble_test

import (
	"io"
	"log"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/sluice-deploy/sluice/builder/assemble"
	"github.com/sluice-deploy/sluice/builder/enginetest"
)

// serve starts a registry and returns its host:port.
func serve(t testing.TB) string {
	t.Helper()
	s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func TestConformance(t *testing.T) {
	t.Parallel()
	enginetest.Run(t, func(t *testing.T) enginetest.Subject {
		return enginetest.Subject{Engine: assemble.New(assemble.Config{}), Registry: serve(t)}
	})
}
