package assemble_test

import (
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/sluice-deploy/sluice/builder"
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
	enginetest.Run(t, func(t *testing.T) enginetest.Harness {
		return enginetest.Harness{Engine: newEngine(t, assemble.Config{}), Registry: serve(t)}
	})
}

func newEngine(t testing.TB, cfg assemble.Config) *assemble.Engine {
	t.Helper()
	engine, err := assemble.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return engine
}

// TestConfigIsChecked gives each field of Config that has bad values one.
func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	_, err := assemble.New(assemble.Config{Insecure: []string{"registry.example.com", "http://registry", ""}})
	for _, want := range []string{
		`assemble: Config.Insecure[1]: "http://registry": want host or host:port: invalid`,
		`assemble: Config.Insecure[2]: "": want host or host:port: invalid`,
	} {
		if !errors.Is(err, builder.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
