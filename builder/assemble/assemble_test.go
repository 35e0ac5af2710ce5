package assemble_test

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

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
	_, err := assemble.New(assemble.Config{Insecure: []string{"registry.example.com",
		"http://registry", ""}})
	for _, want := range []string{
		`assemble: Config.Insecure[1]: "http://registry": want host or host:port: invalid`,
		`assemble: Config.Insecure[2]: "": want host or host:port: invalid`,
	} {
		if !errors.Is(err, builder.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestObserve(t *testing.T) {
	t.Parallel()
	now := time.Unix(0, 0)
	var seen []string
	engine := newEngine(t, assemble.Config{
		Now: func() time.Time {
			now = now.Add(time.Second)
			return now
		},
		Observe: func(op string, took time.Duration, err error) {
			seen = append(seen, fmt.Sprint(op, " ", took, " ", errors.Is(err, builder.ErrInvalid)))
		},
	})
	r := builder.Request{Dockerfile: []byte("FROM scratch\nLABEL a=b\n"), Repository: serve(t) +
		"/app"}
	if _, err := engine.Build(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	r.Tag = "not a tag"
	_, _ = engine.Build(t.Context(), r)
	if got := strings.Join(seen, ", "); got != "build 1s false, build 1s true" {
		t.Errorf("observed %s", got)
	}
}
