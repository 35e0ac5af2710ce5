package platform_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/server/platform"
)

// goodConfig is one without fault. Its envconfig is a few bytes: each build keeps a copy.
func goodConfig(t *testing.T) platform.Config {
	envconfig, err := os.Executable() // any program of this platform
	require.NoError(t, err)
	return platform.Config{
		Dir: filepath.Join(t.TempDir(), "data"), Registry: "127.0.0.1:5800",
		Nginx:     os.DirFS(filepath.Join("..", "nginx")),
		NginxPort: 8880, NginxTLSPort: 8843, Pool: "127.60.0.0/24", Envconfig: envconfig,
	}
}

func TestBadConfigIsNamed(t *testing.T) {
	t.Parallel()
	type change = func(*platform.Config)
	cases := map[string][]change{
		"Dir": {func(cfg *platform.Config) { cfg.Dir = "" }},
		"Registry": {
			func(cfg *platform.Config) { cfg.Registry = "" },
			func(cfg *platform.Config) { cfg.Registry = "127.0.0.1" },
			func(cfg *platform.Config) { cfg.Registry = "127.0.0.1:0" },
			func(cfg *platform.Config) { cfg.Registry = ":5800" },
		},
		"Nginx": {
			func(cfg *platform.Config) { cfg.Nginx = nil },
			func(cfg *platform.Config) { cfg.Nginx = fstest.MapFS{} },
			func(cfg *platform.Config) { cfg.Nginx = os.DirFS("/nonexistent") },
		},
		"NginxPort": {
			func(cfg *platform.Config) { cfg.NginxPort = 0 },
			func(cfg *platform.Config) { cfg.NginxPort = 65536 },
		},
		"NginxTLSPort": {
			func(cfg *platform.Config) { cfg.NginxTLSPort = -1 },
			func(cfg *platform.Config) { cfg.NginxTLSPort = 65536 },
			func(cfg *platform.Config) { cfg.NginxTLSPort = cfg.NginxPort },
		},
		"Pool": {
			func(cfg *platform.Config) { cfg.Pool = "" },
			func(cfg *platform.Config) { cfg.Pool = "127.58.0.0/33" },
			func(cfg *platform.Config) { cfg.Pool = "::1/120" },
			func(cfg *platform.Config) { cfg.Pool = "192.0.2.0/24" },
			func(cfg *platform.Config) { cfg.Pool = "127.0.0.1-128.0.0.1" },
		},
		"CoolDown": {func(cfg *platform.Config) { cfg.CoolDown = -time.Second }},
		"Envconfig": {func(cfg *platform.Config) {
			cfg.Envconfig = ""
		}, func(cfg *platform.Config) { cfg.Envconfig = "/" }},
		"Builds": {
			func(cfg *platform.Config) { cfg.Builds = -1 },
			func(cfg *platform.Config) { cfg.Builds = 65 },
		},
		"BuildPolicy": {func(cfg *platform.Config) { cfg.BuildPolicy = "newest" }},
		"Fetch":       {func(cfg *platform.Config) { cfg.Fetch = []string{"git", "ftp"} }},
		"TaskTTL": {
			func(cfg *platform.Config) { cfg.TaskTTL = -time.Second },
			func(cfg *platform.Config) { cfg.TaskTTL = 101 * 365 * 24 * time.Hour },
		},
		"Instances": {
			func(cfg *platform.Config) { cfg.Instances = map[string]int{"stable": -1} },
			func(cfg *platform.Config) { cfg.Instances = map[string]int{"nowhere": 1} },
		},
		"Patience": {func(cfg *platform.Config) { cfg.Patience = -time.Second }},
		"Drain":    {func(cfg *platform.Config) { cfg.Drain = -time.Second }},
		"Door": {
			func(cfg *platform.Config) { cfg.Door.Ports = "1" },
			func(cfg *platform.Config) { cfg.Door.Host = "localhost" },
			func(cfg *platform.Config) { cfg.Door.Shared = "8801" },
			func(cfg *platform.Config) { cfg.Door.Client = "via" },
		},
		"Rules":     {func(cfg *platform.Config) { cfg.Rules = "/nonexistent" }},
		"Templates": {func(cfg *platform.Config) { cfg.Templates = "/nonexistent" }},
		"Breakers":  {func(cfg *platform.Config) { cfg.Breakers = []string{"a\nb"} }},
		"Adopters":  {func(cfg *platform.Config) { cfg.Adopters = []string{"", "a"} }},
		// any value will do
		"KeepBaseline": nil,
		"Logger":       nil,
	}
	for f := range reflect.TypeFor[platform.Config]().Fields() {
		changes, ok := cases[f.Name]
		require.True(t, ok, "%s has no case", f.Name)
		for _, change := range changes {
			cfg := goodConfig(t)
			change(&cfg)
			_, err := platform.Open(t.Context(), cfg)
			require.ErrorIs(t, err, platform.ErrInvalid, f.Name)
			require.ErrorContains(t, err, "platform: Config."+f.Name)
		}
	}
	_, err := platform.Open(t.Context(), platform.Config{})
	for _, field := range strings.Fields("Dir Registry Nginx NginxPort Pool Envconfig") {
		require.ErrorContains(t, err, "platform: Config."+field+": ")
	}
}

// TestFailedOpenClosesTheState opens a directory again after a failure behind the point from which
// the state is open.
func TestFailedOpenClosesTheState(t *testing.T) {
	t.Parallel()
	cfg := goodConfig(t)
	bad := cfg
	bad.Nginx = fstest.MapFS{"nginx.conf": {Data: []byte("no_such_thing on;\n")}}
	_, err := platform.Open(t.Context(), bad)
	require.ErrorContains(t, err, "0 http blocks, want one")
	bad = cfg
	bad.Dir = filepath.Join(t.TempDir(), "a b")
	_, err = platform.Open(t.Context(), bad)
	require.ErrorContains(t, err, "letters, digits and /._- only")
	p, err := platform.Open(t.Context(), cfg)
	require.NoError(t, err)
	require.NoError(t, p.Close())
}
