//go:build linux

package nginx

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-deploy/sluice/internal/soak"
	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/debian"
)

// suite is the environment variable that names the release whose Nginx stands in the machine's
// place, in the test binaries that Others starts.
const suite = "SLUICE_NGINX"

// places are the files of a root that a test binary sees in the place of the machine's.
var places = []string{"/usr/sbin/nginx", "/usr/lib/nginx/modules", "/usr/share/lua/5.1",
	"/etc/nginx"}

// Others runs tests of the package once more for each Nginx of debian.Releases but the machine's,
// as a subtest with the name of the release. It starts the test binary again, in a mount namespace
// where the other Nginx, its modules, its Lua library and its /etc/nginx are in the place of the
// machine's, so a test needs no change to run on it. The tests are given by name; in make soak all
// of the package run. Others fails where one of them fails, or is skipped, or does not exist.
//
// A Nginx that is not there, since its release could not be fetched, is skipped as "not run", with
// the reason; make test prints the same at its end. Others itself does nothing in a test binary
// that it has started.
func Others(t *testing.T, tests ...string) {
	t.Helper()
	if os.Getenv(suite) != "" {
		return
	}
	testbed.NeedProgram(t, "nginx", "nginx")
	testbed.NeedFile(t, Modules+"/ngx_http_lua_module.so", "libnginx-mod-http-lua")
	for _, r := range debian.Others() {
		t.Run(r.Suite, func(t *testing.T) {
			root, err := r.Cached()
			if err != nil {
				t.Skip("not run: ", err)
			}
			if os.Geteuid() != 0 {
				t.Skip("not run: another Nginx in the place of the machine's needs root")
			}
			t.Logf("%s: %s", r.Title, root)
			again(t, r, root, tests)
		})
	}
}

// again runs the test binary with the Nginx of a root.
func again(t *testing.T, r debian.Release, root debian.Root, tests []string) {
	t.Helper()
	pattern := "^(" + strings.Join(tests, "|") + ")$"
	if soak.Whole() {
		pattern = "."
	}
	script := "set -e\n"
	for _, p := range places {
		script += fmt.Sprintf("mount --bind %q %q\n", root.Path(p), p)
	}
	args := []string{"--mount", "sh", "-c", script + `exec "$0" "$@"`, os.Args[0], "-test.v",
		"-test.run", pattern, "-test.skip", "^" + strings.Split(t.Name(), "/")[0] + "$"}
	if end, ok := t.Deadline(); ok {
		args = append(args, "-test.timeout", (time.Until(end) - 5*time.Second).String())
	}
	cmd := exec.CommandContext(t.Context(), "unshare", args...)
	cmd.Env = append(os.Environ(), suite+"="+r.Suite)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	runtime.LockOSThread() // the signal comes when the thread ends
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	out, err := cmd.CombinedOutput()
	passed, skipped := outcomes(out)
	if err != nil {
		t.Fatalf("%s: %v\n%s", root, err, out)
	}
	if len(skipped) > 0 {
		t.Errorf("%s: skipped: %s", root, strings.Join(skipped, ", "))
	}
	for _, name := range tests {
		if !slices.Contains(passed, name) {
			t.Errorf("%s: the package has no test %s", root, name)
		}
	}
	if len(passed) == 0 {
		t.Errorf("%s: no test ran", root)
	}
	t.Logf("%s passed: %s", root, strings.Join(passed, ", "))
}

var outcome = regexp.MustCompile(`(?m)^ *--- (PASS|SKIP): (\S+)`)

// outcomes reads the names of the tests that passed, and of the tests and subtests that were
// skipped, out of a test binary's output.
func outcomes(out []byte) (passed, skipped []string) {
	for _, m := range outcome.FindAllSubmatch(out, -1) {
		name := string(m[2])
		switch {
		case bytes.Equal(m[1], []byte("SKIP")):
			skipped = append(skipped, name)
		case !strings.Contains(name, "/"):
			passed = append(passed, name)
		}
	}
	return passed, skipped
}

// seen is the root of the release whose Nginx the test binary sees, if Others has started it.
func seen(t testing.TB) (debian.Root, bool) {
	t.Helper()
	for _, r := range debian.Releases {
		if r.Suite == os.Getenv(suite) {
			root, err := r.Cached()
			if err != nil {
				t.Fatal(err)
			}
			return root, true
		}
	}
	return debian.Root{}, false
}

// Version is the version of the Nginx that the test binary sees, such as "1.26.3": in a test binary
// that Others has started, that of the other release.
func Version(t testing.TB) string {
	t.Helper()
	if root, ok := seen(t); ok {
		return root.Nginx
	}
	path := testbed.NeedProgram(t, "nginx", "nginx")
	out, err := exec.Command(path, "-v").CombinedOutput()
	_, version, ok := strings.Cut(strings.TrimSpace(string(out)), "nginx/")
	if err != nil || !ok {
		t.Fatalf("nginx -v: %v: %s", err, out)
	}
	version, _, _ = strings.Cut(version, " ")
	return version
}

// Since reports whether the Nginx that the test binary sees is of the version or a later one: a
// test of a directive that is new in it also holds the answer of an older Nginx.
func Since(t testing.TB, major, minor, patch int) bool {
	t.Helper()
	var have [3]int
	text := Version(t)
	if _, err := fmt.Sscanf(text, "%d.%d.%d", &have[0], &have[1], &have[2]); err != nil {
		t.Fatalf("version %q of Nginx: %v", text, err)
	}
	return slices.Compare(have[:], []int{major, minor, patch}) >= 0
}

// Curl is the path of curl: that of the release whose Nginx the test binary sees, which speaks
// HTTP/3 from Debian 13 on, else the machine's.
func Curl(t testing.TB) string {
	t.Helper()
	if root, ok := seen(t); ok {
		return root.Path("/usr/bin/curl")
	}
	return testbed.NeedProgram(t, "curl", "curl")
}
