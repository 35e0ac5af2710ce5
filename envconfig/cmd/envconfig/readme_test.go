//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/stretchr/testify/require"
)

// The image that the README builds, put together by hand from the lines of its Dockerfile on the
// base of the machine's own /usr, starts as process 1 for the user work, and drains a Tomcat that
// is a shell script here.
func TestTomcatImageOfTheReadme(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	_, rest, ok := strings.Cut(string(readme), "```dockerfile\n")
	require.True(t, ok)
	dockerfile, _, _ := strings.Cut(rest, "```")
	for _, line := range []string{
		"COPY --from=envconfig /out/envconfig /sbin/envconfig\n",
		"COPY --chmod=0755 startup.sh /sbin/startup.sh\n",
		"COPY etc/envconfig /etc/envconfig\n",
		"RUN install -d -o work /opt/web/shop/conf /run/envconfig /opt/web/shop/work\n",
		"/out/envconfig-check check && /out/envconfig-check manifest\n",
		"USER work\n",
		`ENTRYPOINT ["/sbin/envconfig", "--map-exit", "143:0", "--"]` + "\n",
		`CMD ["sh", "/sbin/startup.sh"]` + "\n",
	} {
		require.Contains(t, dockerfile, line, "the test does what this line says")
	}

	image := t.TempDir()
	write := func(name, content string, mode os.FileMode) {
		t.Helper()
		name = filepath.Join(image, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		if mode == 0o755 {
			require.NoError(t, writeProgram(name, []byte(content)))
			return
		}
		require.NoError(t, os.WriteFile(name, []byte(content), mode))
	}
	binaryOf := func(of func() (string, error), name string) {
		t.Helper()
		from, err := of()
		require.NoError(t, err)
		data, err := os.ReadFile(from)
		require.NoError(t, err)
		write(name, string(data), 0o755)
	}
	binaryOf(binary, "sbin/envconfig")
	binaryOf(checker, "out/envconfig-check")
	write("sbin/startup.sh", "#!/bin/sh\n/opt/tomcat/bin/catalina.sh run\necho shell went on\n",
		0o755)
	write("opt/tomcat/bin/catalina.sh", "#!/bin/sh\ntrap 'sleep 0.3; echo DRAINED; exit 143' "+
		"TERM\necho \"READY $(id -u) $(cat /opt/web/shop/conf/app.properties)\"\n"+
		"while :; do sleep 0.05; done\n", 0o755)
	write("etc/envconfig/envs/_base/opt/web/shop/conf/log4j2.xml",
		"<Configuration><Loggers/></Configuration>", 0o644)
	for _, name := range []string{"test", "sandbox", "production", "stable"} {
		write("etc/envconfig/envs/"+name+"/opt/web/shop/conf/app.properties", "db=db."+
			name+".example.com", 0o644)
	}
	write("Dockerfile", dockerfile, 0o644)
	user := "999:999"
	for _, dir := range []string{"opt/web/shop/conf", "run/envconfig"} {
		require.NoError(t, os.MkdirAll(filepath.Join(image, dir), 0o755))
		if os.Getuid() == 0 {
			require.NoError(t, os.Chown(filepath.Join(image, dir), 999, -1))
		} else {
			user = "0:0" // in a user namespace there is one user only
		}
	}
	// the base image: the machine's own
	for _, dir := range []string{"usr", "bin", "lib", "lib64"} {
		require.NoError(t, os.MkdirAll(filepath.Join(image, dir), 0o755))
	}
	const base = `for d in usr bin lib lib64; do mount --rbind /$d "$IMAGE/$d"; done; exec `
	run := func(command string, env ...string) *service {
		return startWith(t,
			&syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS},
			"set -e; "+base+command,
			append(env, "IMAGE="+image, "ENVCONFIG_SOURCE=/etc/envconfig", "ENVCONFIG_ROOT=/",
				"ENVCONFIG_STATE=/run/envconfig")...)
	}

	s := run(`chroot "$IMAGE" /out/envconfig-check check --dockerfile /Dockerfile --image-root /`)
	require.Equal(t, 0, s.ends(), "%v", s.output)
	require.Contains(t, s.output.String(), "check: 4 environments, 8 files, 4 keys: 0 findings, "+
		"0 allowed")
	s = run(`chroot "$IMAGE" /out/envconfig-check manifest`)
	require.Equal(t, 0, s.ends(), "%v", s.output)
	require.FileExists(t, image+"/etc/envconfig/manifest.json")

	s = run(`chroot --userspec=`+
		user+` "$IMAGE" /sbin/envconfig --map-exit 143:0 -- sh /sbin/startup.sh`,
		"DEPLOY_ENV=production")
	s.sees("READY " + strings.Split(user, ":")[0] + " db=db.production.example.com")
	require.Contains(t, s.output.String(), "envconfig: environment=production digest=sha256:")
	s.signal(syscall.SIGTERM)
	require.Equal(t, 0, s.ends(), "%v", s.output)
	require.Contains(t, s.output.String(), "DRAINED")
	require.Contains(t, s.output.String(), "drained processes=")

	s = run(`chroot --userspec=`+
		user+` "$IMAGE" /sbin/envconfig --map-exit 143:0 -- sh /sbin/startup.sh`, "DEPLOY_ENV=prod")
	require.Equal(t, 78, s.ends(), "%v", s.output)
}

// checker builds envconfig-check.
func checker() (string, error) {
	dir, err := os.MkdirTemp("", "envconfig-check-")
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "envconfig-check")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", name,
		"../envconfig-check")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	return name, cmd.Run()
}

// Every Dockerfile of the README is one for BuildKit's own parser, and takes files from stages that
// it has.
func TestDockerfilesOfTheReadme(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	blocks := strings.Split(string(readme), "```dockerfile\n")[1:]
	require.Len(t, blocks, 2)
	text := ""
	for _, block := range blocks { // the second is one more line of the first
		block, _, _ = strings.Cut(block, "```")
		text += block
	}
	parsed, err := parser.Parse(strings.NewReader(text))
	require.NoError(t, err)
	require.Empty(t, parsed.Warnings)
	stages, _, err := instructions.Parse(parsed.AST, nil)
	require.NoError(t, err)
	require.Len(t, stages, 2)
	require.Equal(t, "envconfig", stages[0].Name)
	mounts, copies := 0, 0
	for _, c := range stages[1].Commands {
		switch c := c.(type) {
		case *instructions.RunCommand:
			require.NoError(t, c.Expand(func(word string) (string, error) { return word, nil }))
			for _, m := range instructions.GetMounts(c) {
				require.Equal(t, "envconfig", m.From)
				mounts++
			}
		case *instructions.CopyCommand:
			if c.From != "" {
				require.Equal(t, "envconfig", c.From)
				copies++
			}
		}
	}
	require.Equal(t, []int{2, 1}, []int{mounts, copies})
}
