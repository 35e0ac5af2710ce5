//go:build linux

package nginx_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/nginx"
)

func TestNginxWithLuaTellsTwoVIPsApart(t *testing.T) {
	t.Parallel()
	dir, port := testbed.Dir(t), testbed.Port(t)
	conf := filepath.Join(dir, "nginx.conf")
	require.NoError(t, os.WriteFile(conf, fmt.Appendf(nil, `daemon off;
load_module %[1]s/ndk_http_module.so;
load_module %[1]s/ngx_http_lua_module.so;
pid %[2]s/pid;
events {}
http {
    access_log off;
    lua_package_path "/usr/share/lua/5.1/?.lua;;";
    server {
        listen %[3]d;
        location / { content_by_lua_block { ngx.say(ngx.var.server_addr) } }
    }
}
`, nginx.Modules, dir, port), 0o644))
	n := nginx.Start(t, dir, conf)
	for _, vip := range []string{"127.58.0.7", "127.58.0.8"} {
		response, err := http.Get(fmt.Sprintf("http://%s:%d/", vip, port))
		require.NoError(t, err)
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, vip+"\n", string(body))
	}
	n.Kill()
	require.Empty(t, n.Workers())
	n.Start()
	require.NotEmpty(t, n.Workers())
}

// The other releases' Nginx is in the place of the machine's, with its own modules and Lua library.
func TestOthers(t *testing.T) {
	t.Parallel()
	nginx.Others(t, "TestNginxWithLuaTellsTwoVIPsApart", "TestVersion")
}

func TestVersion(t *testing.T) {
	t.Parallel()
	program := testbed.NeedProgram(t, "nginx", "nginx")
	out, err := exec.Command(program, "-v").CombinedOutput()
	require.NoError(t, err, string(out))
	want := nginx.Version(t)
	require.Contains(t, string(out), "nginx/"+want)
}
