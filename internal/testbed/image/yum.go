//go:build linux

package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/sluice-deploy/sluice/internal/testbed"
)

// Yum pushes an image to a registry, given as host:port, and returns its name with the digest. It
// has Debian's dnf, as dnf and yum, with a shell and the usual commands, a user work, and one
// repository of RPM packages, at /srv/rpm, with the package rsync, which the image lacks: this
// machine's program in a package that Yum makes with rpmbuild.
func Yum(t testing.TB, registry string) string {
	t.Helper()
	testbed.NeedProgram(t, "dnf", "dnf")
	root := t.TempDir()
	rpms := filepath.Join(root, "srv", "rpm")
	makeRPM(t, rpms, "rsync", testbed.NeedProgram(t, "rsync", "rsync"))
	run(t, testbed.NeedProgram(t, "createrepo_c", "createrepo-c"), "--quiet", rpms)
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\nwork:x:1000:1000::/home/work:/bin/sh\n",
		"etc/group":  "root:x:0:\nwork:x:1000:\n",
		"etc/yum.repos.d/test.repo": "[test]\nname=test\nbaseurl=file:///srv/rpm\nenabled=1\n" +
			"gpgcheck=0\n",
		"etc/os-release": "ID=debian\nVERSION_ID=\"12\"\n",
	} {
		write(t, filepath.Join(root, name), text)
	}
	for _, dir := range []string{"tmp", "root", "proc", "sys", "dev", "run", "home/work",
		"var/lib/rpm", "var/cache", "var/log", "var/tmp"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	bin := filepath.Join(root, "usr", "bin")
	err := errors.Join(os.MkdirAll(bin, 0o755), os.Symlink("dnf", filepath.Join(bin, "yum")))
	if err != nil {
		t.Fatal(err)
	}
	// Debian's files as they are here, then the image's own.
	list := filepath.Join(t.TempDir(), "files")
	write(t, list, strings.Join(packageFiles(t, "dnf", "rsync", "coreutils", "dash", "bash", "sed",
		"grep", "findutils"), "\x00"))
	cmd := exec.Command("tar", "--create", "--no-recursion", "--null", "--directory=/",
		"--verbatim-files-from", "--files-from="+list, "--directory="+root, "--recursion", "srv",
		"etc/passwd", "etc/group", "etc/yum.repos.d", "etc/os-release", "tmp", "root", "proc",
		"sys", "dev", "run", "home", "var", "usr/bin/yum")
	var problem bytes.Buffer
	cmd.Stderr = &problem
	img, err := withLayer(t, func(w io.Writer) error {
		cmd.Stdout = w
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("tar: %w: %s", err, &problem)
		}
		return nil
	})
	if err == nil {
		img, err = configured(img, func(c *v1.Config) {
			c.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return pushImage(t, registry+"/testbed/yum:1", img)
}

// makeRPM makes the package name, which has a program in /usr/bin, in a directory.
func makeRPM(t testing.TB, dir, name, program string) {
	t.Helper()
	top := t.TempDir()
	spec := filepath.Join(top, name+".spec")
	write(t, spec, fmt.Sprintf(`Name: %[1]s
Version: 1
Release: 1
Summary: %[1]s of the machine that runs the tests
License: none
BuildArch: noarch
AutoReqProv: no
%%description
%[1]s
%%install
install -D -m 0755 %[2]s %%{buildroot}/usr/bin/%[1]s
%%files
/usr/bin/%[1]s
`, name, program))
	run(t, testbed.NeedProgram(t, "rpmbuild", "rpm"), "-bb", "--quiet", "--define", "_topdir "+top,
		"--define", "_rpmdir "+dir, "--define", "__os_install_post %{nil}", "--define",
		"_binaries_in_noarch_packages_terminate_build 0", "--define", "debug_package %{nil}",
		spec)
}

func run(t testing.TB, program string, args ...string) []byte {
	t.Helper()
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v: %s", program, args, err, out)
	}
	return out
}

func write(t testing.TB, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// leftOut are paths of packages that the image of Yum has by itself, or does without.
var leftOut = []string{"/usr/bin/rsync", "/usr/bin/rsync-ssl", "/etc/passwd", "/etc/group",
	"/etc/os-release"}

// packageFiles are the files of installed Debian packages and of their dependencies, relative to /,
// without documentation.
func packageFiles(t testing.TB, packages ...string) (files []string) {
	t.Helper()
	depends := exec.Command("apt-cache", append([]string{"depends", "--recurse", "--installed",
		"--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks", "--no-replaces",
		"--no-enhances"}, packages...)...)
	out, err := depends.Output()
	if err != nil {
		t.Fatalf("apt-cache depends: %v", err)
	}
	var names []string
	for line := range strings.Lines(string(out)) {
		if name := strings.TrimSpace(line); name != "" && line[0] != ' ' && line[0] != '<' {
			names = append(names, name)
		}
	}
	// an alternative that is not installed makes its status 1
	out, err = exec.Command("dpkg-query", append([]string{"--listfiles"}, names...)...).Output()
	if err != nil && len(out) == 0 {
		t.Fatalf("dpkg-query --listfiles: %v", err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		file := strings.TrimSpace(line)
		info, err := os.Lstat(file)
		if err != nil || seen[file] || file == "/." || slices.Contains(leftOut, file) ||
			slices.ContainsFunc(unread, func(dir string) bool {
				return strings.HasPrefix(file, dir)
			}) {
			continue
		}
		if resolved, err := filepath.EvalSymlinks(file); info.IsDir() && err == nil {
			file = resolved // /lib is a link to /usr/lib, and in packages a directory
		}
		seen[file] = true
		files = append(files, strings.TrimPrefix(file, "/"))
	}
	return files
}
