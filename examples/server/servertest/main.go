package servertest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/sluice-deploy/sluice/examples/server/instance"
	"github.com/sluice-deploy/sluice/examples/story"
)

// shared is the directory of the binaries that the servers of this process have in common.
var shared string

// Main is the body of TestMain: it becomes an instance where it is started as one, else it runs the
// tests and exits. Processes on the directories of Start and Sweep end also when the test binary is
// killed.
func Main(m *testing.M) {
	instance.Init()
	if os.Args[0] == sweeperName {
		sweep(os.Stdin)
		os.Exit(0)
	}
	dir, err := os.MkdirTemp("", "sluice-servertest-*")
	if err != nil {
		fmt.Fprintln(os.Stderr, "servertest:", err)
		os.Exit(1)
	}
	shared = dir
	if err := errors.Join(startSweeper(), tellSweeper(dir)); err != nil {
		fmt.Fprintln(os.Stderr, "servertest: sweeper:", err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	if err := stopSweeper(); err != nil {
		fmt.Fprintln(os.Stderr, "servertest: sweeper:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// Examples is the directory of the examples module.
func Examples() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// envconfig builds the binary that goes into images, once for all servers.
var envconfig = sync.OnceValues(func() (string, error) {
	if shared == "" {
		return "", fmt.Errorf("servertest: TestMain must call servertest.Main")
	}
	binary := filepath.Join(shared, "envconfig")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary,
		"github.com/sluice-deploy/sluice/envconfig/cmd/envconfig")
	cmd.Dir, cmd.Env = Examples(), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("servertest: go build envconfig: %w: %s", err, out)
	}
	return binary, nil
})

var (
	servicesMu sync.Mutex
	services   = map[string]string{}
)

// Programs copies the binary of the sample service of one version to the path service, and that of
// envconfig into the same directory.
func (s *Server) Programs(t testing.TB, version, service string) {
	t.Helper()
	binary, err := envconfig()
	if err != nil {
		t.Fatal(err)
	}
	for to, from := range map[string]string{
		service: compiled(t, version), filepath.Join(filepath.Dir(service), "envconfig"): binary,
	} {
		data, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, data, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// compiled builds the sample service of one version, once for all servers.
func compiled(t testing.TB, version string) string {
	t.Helper()
	servicesMu.Lock()
	defer servicesMu.Unlock()
	if services[version] == "" {
		binary, err := story.Compile(t.Context(), Examples(), version, shared)
		if err != nil {
			t.Fatal(err)
		}
		services[version] = binary
	}
	return services[version]
}
