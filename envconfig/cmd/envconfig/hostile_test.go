//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDrainBehindAnotherInit(t *testing.T) {
	t.Parallel()
	s := start(t, `printf '%s\n' '"$A"; echo shell went on' > startup.sh; SLUICE_TEST_APP=drain; export SLUICE_TEST_APP
		exec "$E" --init --quiet -- "$E" -- sh startup.sh`)
	s.sees("READY")
	s.signal(syscall.SIGTERM)
	require.Equal(t, 143, s.ends())
	require.Contains(t, s.output.String(), "DRAINED")
	require.NotContains(t, s.output.String(), "ASKED TWICE")
}

// Where a container's profile forbids prctl, envconfig cannot become the reaper and does the rest.
func TestWithoutPrctl(t *testing.T) {
	t.Parallel()
	s := startWith(t, &syscall.SysProcAttr{},
		`SLUICE_TEST_APP=noprctl exec "$A" "$E" --init -- sh -c 'echo READY; exit 7'`)
	require.Equal(t, 7, s.ends(), s.output)
	require.Contains(t, s.output.String(), "READY")
}

func TestSocketsOfTheSupervisorArePassedOn(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"--init=true", "--init=false"} {
		s := start(t, `echo socket > file; exec 3< file; LISTEN_FDS=1 exec "$E" `+
			mode+` -- sh -c 'echo $LISTEN_FDS $(cat <&3)'`)
		require.Equal(t, 0, s.ends(), mode)
		require.Contains(t, s.output.String(), "1 socket\n", mode)
	}
}

func TestClosedStandardInput(t *testing.T) {
	t.Parallel()
	for _, input := range []string{"<&-", "< /dev/null"} {
		for _, mode := range []string{"--init=true", "--init=false"} {
			s := start(t, `exec "$E" `+mode+` -- sh -c 'read x; echo went on; exit 5' `+input)
			require.Equal(t, 5, s.ends(), "%s %s", mode, input)
			require.Contains(t, s.output.String(), "went on\n")
		}
	}
}

// Variables for the service's own Go runtime reach the service, and leave envconfig as it is.
func TestVariablesOfTheGoRuntime(t *testing.T) {
	t.Parallel()
	const set = `GOMAXPROCS=many GOGC=1 GOMEMLIMIT=1 GOTRACEBACK=crash GODEBUG=asyncpreemptoff=1,execwait=2`
	for _, mode := range []string{"--init=true", "--init=false"} {
		s := start(t, `export `+set+`; exec "$E" `+
			mode+` -- sh -c 'echo $GOMAXPROCS $GOGC $GOMEMLIMIT $GOTRACEBACK $GODEBUG; exit 6'`)
		require.Equal(t, 6, s.ends(), mode)
		require.Contains(t, s.output.String(), "many 1 1 crash asyncpreemptoff=1,execwait=2\n")
	}
}

func TestTooManyVariablesForTheService(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"--init=true", "--init=false"} {
		s := start(t, `ulimit -s 1024; PAD=$(head -c 100000 /dev/zero | tr '\0' x); export PAD; ENVCONFIG_SET="COPY=$PAD"; export ENVCONFIG_SET
			exec "$E" `+mode+` -- /bin/true`)
		require.Equal(t, 126, s.ends(), mode)
		require.Contains(t, s.output.String(), "/bin/true: argument list too long: not executable")
		require.NotContains(t, s.output.String(), "xxxx")
	}
}

func TestCommandBelowTheWorkingDirectory(t *testing.T) {
	t.Parallel()
	s := start(t, `printf '#!/bin/sh\nexit 9\n' > tool; chmod +x tool; exec "$E" -- ./tool`)
	require.Equal(t, 9, s.ends())
}

func TestBinaryWhoseLoaderIsNotThere(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"--init=true", "--init=false"} {
		s := start(t, `sed 's#/ld-linux#/ld-linus#' /bin/true > tool; chmod +x tool; exec "$E" `+
			mode+` -- ./tool`)
		require.Equal(t, 126, s.ends(), mode)
		require.Contains(t, s.output.String(), "./tool: the loader that it was linked for is not "+
			"in the image")
	}
}

// A limit on the size of files is met as a full disk is: the process gets SIGXFSZ and must outlive
// it to roll back.
func TestLimitOfFileSize(t *testing.T) {
	t.Parallel()
	s := start(t,
		`head -c 5000000 /dev/zero > src/envs/test/etc/big; ulimit -f 1000; exec "$E" -- echo STARTED`)
	require.Equal(t, 74, s.ends(), "%v", s.output)
	require.Contains(t, s.output.String(), "/etc/big: write: file too large")
	require.NotContains(t, s.output.String(), "STARTED")
	require.NoDirExists(t, filepath.Join(s.cmd.Dir, "root/etc"))
}

// A variable that is there twice counts as the C library has it: the first.
func TestVariableThatIsThereTwice(t *testing.T) {
	t.Parallel()
	exe, err := binary()
	require.NoError(t, err)
	dir := t.TempDir()
	for _, environment := range []string{"test", "production"} {
		require.NoError(t, os.MkdirAll(dir+"/src/envs/"+environment, 0o755))
		require.NoError(t, os.WriteFile(dir+"/src/envs/"+environment+"/which", []byte(environment),
			0o644))
	}
	p, err := os.StartProcess(exe, []string{exe, "activate", "--root", dir, "--source",
		dir + "/src", "--state", dir + "/run"},
		&os.ProcAttr{Env: []string{"DEPLOY_ENV=test", "DEPLOY_ENV=production"}})
	require.NoError(t, err)
	state, err := p.Wait()
	require.NoError(t, err)
	require.Equal(t, 0, state.ExitCode())
	data, err := os.ReadFile(dir + "/which")
	require.NoError(t, err)
	require.Equal(t, "test", string(data))
}

// No way to fail shows a value, of a variable, a secret or a file.
func TestValuesAreShownNowhere(t *testing.T) {
	t.Parallel()
	exe, err := binary()
	require.NoError(t, err)
	const canary = "c4n4ry"
	dir := t.TempDir()
	for name, content := range map[string]string{
		"src/envs/test/etc/app.conf":    "password=" + canary + " ${SECRET} ${file:/run/secret}",
		"src/envs/test/etc/other.conf":  "other=" + canary,
		"src/envconfig.json":            `{"paths":[{"match":"etc/app.conf","action":"render"}],"render":{"variables":["SECRET"],"files":["/run/*"]}}`,
		"root/run/secret":               canary,
		"root/etc/kept":                 canary,
		"broken/envs/test/etc/app.conf": canary,
		"broken/manifest.json": `{"version":1,"digest":"` + strings.Repeat("x", 10) +
			`","spec":{},"environments":{},"required":[]}`,
	} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
	}
	flags := []string{"--root", dir + "/root", "--source", dir + "/src", "--state", dir + "/state"}
	for _, args := range [][]string{{"activate"}, {"activate"}, {"status"}, {"verify"}, {"list"},
		{"manifest"}, {"manifest", "--label"}, {"activate", "--dry-run"},
		{"activate", "--source", dir + "/broken"}, {"activate", "--grace", canary[:2] + "s"}} {
		cmd := exec.Command(exe, append([]string{args[0]}, append(flags, args[1:]...)...)...)
		cmd.Env = []string{"DEPLOY_ENV=test", "SECRET=" + canary, "GOTRACEBACK=all"}
		out, _ := cmd.CombinedOutput()
		require.NotContains(t, string(out), canary, "%v", args)
		require.NotContains(t, string(out), "goroutine", "%v", args)
	}
	record, err := os.ReadFile(dir + "/state/active.json")
	require.NoError(t, err)
	require.NotContains(t, string(record), canary)
	rendered, err := os.ReadFile(dir + "/root/etc/app.conf")
	require.NoError(t, err)
	require.Contains(t, string(rendered), canary)
}
