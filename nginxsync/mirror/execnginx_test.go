//go:build linux

package mirror_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
	"github.com/sluice-deploy/sluice/nginxsync/mirror"
	"github.com/sluice-deploy/sluice/nginxsync/mirror/mirrortest"
)

func TestExecNginx(t *testing.T) {
	t.Parallel()
	mirrortest.Run(t, func(t *testing.T) *mirrortest.Harness {
		dir := nginxtest.Dir(t)
		pid, log, main := filepath.Join(dir, "nginx.pid"), filepath.Join(dir, "error.log"),
			filepath.Join(dir, "nginx.conf")
		h := &mirrortest.Harness{
			Nginx:   &mirror.ExecNginx{Prefix: dir, PIDFile: pid, ErrorLog: log},
			Workers: 2,
			Main:    main,
			Text: fmt.Sprintf("daemon off;\nworker_processes 2;\npid %s;\nerror_log %s;\nevents "+
				"{}\n"+
				"http { access_log off; server { listen unix:%s/web.sock; } }\n", pid, log, dir),
			Write: func(text string) {
				require.NoError(t, os.WriteFile(main, []byte(text), 0o600))
			},
		}
		h.Write(h.Text)
		nginxtest.Start(t, dir, main)
		return h
	})
}

// The PATH of a plain user of Debian does not lead to Nginx.
func TestExecNginxOffThePath(t *testing.T) {
	testbed.NeedFile(t, "/usr/sbin/nginx", "nginx")
	t.Setenv("PATH", t.TempDir())
	dir := nginxtest.Dir(t)
	main := filepath.Join(dir, "nginx.conf")
	require.NoError(t, os.WriteFile(main, fmt.Appendf(nil, "pid %s/pid;\nevents {}\n", dir), 0o600))
	require.NoError(t, (&mirror.ExecNginx{Prefix: dir}).Test(t.Context(), main))
}
