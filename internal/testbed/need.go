//go:build linux

package testbed

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"testing"

	"github.com/sluice-deploy/sluice/internal/testbed/tools"
)

// missing ends a test whose server or program is missing: it fails where everything is required,
// and is skipped elsewhere.
func missing(t testing.TB, what, how string) {
	t.Helper()
	if os.Getenv("SLUICE_TESTBED") == "require" {
		t.Fatalf("%s is missing, and SLUICE_TESTBED=require: %s", what, how)
	}
	t.Skipf("%s is missing: %s", what, how)
}

// NeedTool returns the path of a program that make tools builds.
func NeedTool(t testing.TB, name string) string {
	t.Helper()
	path, err := tools.Path(name)
	if err != nil {
		missing(t, name, err.Error())
	}
	return path
}

// NeedProgram returns the path of a program of a Debian package.
func NeedProgram(t testing.TB, name, pkg string) string {
	t.Helper()
	// not every user's PATH has the last ones
	for _, candidate := range []string{name, "/usr/sbin/" + name, "/sbin/" + name} {
		if path, err := exec.LookPath(candidate); err == nil {
			return path
		}
	}
	missing(t, name, "apt-get install "+pkg)
	return ""
}

// NeedFile asks for a file of a Debian package.
func NeedFile(t testing.TB, path, pkg string) {
	t.Helper()
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		missing(t, path, "apt-get install "+pkg)
	} else if err != nil {
		t.Fatal(err)
	}
}

// NeedRoot asks for root's rights, which subject needs.
func NeedRoot(t testing.TB, subject string) {
	t.Helper()
	if uid := os.Geteuid(); uid != 0 {
		missing(t, subject, fmt.Sprintf("run the tests as root, they run as user %d", uid))
	}
}
