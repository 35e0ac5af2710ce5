//go:build linux

package hosts

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// roleKey is set in the environment of the test binaries that the next test starts.
const roleKey = "SLUICE_TESTBED_ROLE"

func TestAKilledTestBinaryLeavesNothingAfterTheNextStart(t *testing.T) {
	t.Parallel()
	switch os.Getenv(roleKey) {
	case "killed":
		makeAndHang(t)
	case "next":
		testbed.Own(t)
		return
	}
	testbed.NeedRoot(t, "a bridge")
	binary, err := os.Executable()
	require.NoError(t, err)
	temp := t.TempDir()
	start := func(role string) *exec.Cmd {
		cmd := exec.Command(binary, "-test.run=^"+t.Name()+"$")
		// a bed that no other process cleans
		cmd.Env = append(os.Environ(), roleKey+"="+role, "TMPDIR="+temp)
		return cmd
	}

	killed := start("killed")
	out, err := killed.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, killed.Start())
	for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != "up"; {
		t.Log(lines.Text())
	}
	require.NoError(t, killed.Process.Kill())
	require.Error(t, killed.Wait())
	for what, left := range leftovers(t, temp, killed.Process.Pid) {
		require.NotEmpty(t, left, what)
	}
	said, err := start("next").CombinedOutput()
	require.NoError(t, err, "%s", said)
	for what, left := range leftovers(t, temp, killed.Process.Pid) {
		require.Empty(t, left, what)
	}
}

// makeAndHang makes one of everything that outlives a test binary, says so and waits to be killed.
func makeAndHang(t *testing.T) {
	o := testbed.Own(t)
	Start(t, 1)[0].Run("sleep", "1000")
	dir := o.TestDir(t, "lasting")
	_, err := testbed.StartShared(dir, testbed.Command{Name: "sleep", Path: "/bin/sh",
		Args: []string{"-c", "sleep 1000 & sleep 1000"}})
	require.NoError(t, err)
	testbed.Poll(t, "a child", func() error {
		if n := len(processesOf(t, dir)); n < 2 {
			return fmt.Errorf("%d processes", n)
		}
		return nil
	})
	require.NoError(t, o.Record("cgroup", cgroupOf(os.Getpid())))
	require.NoError(t, testbed.MakeCgroup(cgroupOf(os.Getpid())))
	require.NoError(t, unix.Mount("tmpfs", o.TestDir(t, "mount"), "tmpfs", 0, ""))
	fmt.Println("\nup")
	select {}
}

func cgroupOf(pid int) string { return fmt.Sprintf("/sluice-testbed-%d", pid) }

func leftovers(t *testing.T, temp string, pid int) map[string][]string {
	t.Helper()
	found := map[string][]string{"mounts": nil, "processes": nil}
	for what, pattern := range map[string]string{
		"links":   "/sys/class/net/" + linkName(pid) + "*",
		"hosts":   testbed.NetnsDir + linkName(pid) + "*",
		"files":   temp + "/*",
		"cgroups": testbed.CgroupRoot + "/*" + cgroupOf(pid),
	} {
		var err error
		found[what], err = filepath.Glob(pattern)
		require.NoError(t, err)
	}
	if _, err := os.Stat(testbed.CgroupRoot + cgroupOf(pid)); err == nil { // version 2
		found["cgroups"] = append(found["cgroups"], testbed.CgroupRoot+cgroupOf(pid))
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	require.NoError(t, err)
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, " "+temp+"/") {
			found["mounts"] = append(found["mounts"], line)
		}
	}
	for _, p := range processesOf(t, temp) {
		found["processes"] = append(found["processes"], fmt.Sprint(p))
	}
	return found
}

func processesOf(t *testing.T, dir string) []int {
	t.Helper()
	pids, err := testbed.Processes(dir)
	require.NoError(t, err)
	return pids
}
