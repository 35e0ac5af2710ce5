//go:build linux

package listen_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/nginxsync/internal/listen"
)

// good are values that Nginx takes.
var good = map[string]listen.Address{
	"80":                  {First: 80, Last: 80},
	"080":                 {First: 80, Last: 80},
	"65535":               {First: 65535, Last: 65535},
	"8000-8010":           {First: 8000, Last: 8010},
	"*":                   {First: 80, Last: 80},
	"*:81":                {First: 81, Last: 81},
	"*:8000-8001":         {First: 8000, Last: 8001},
	"0.0.0.0:81":          {First: 81, Last: 81},
	"127.0.0.1":           {Host: "127.0.0.1", First: 80, Last: 80},
	"127.0.0.1:081":       {Host: "127.0.0.1", First: 81, Last: 81},
	"127.0.0.1:8000-8002": {Host: "127.0.0.1", First: 8000, Last: 8002},
	"[::]":                {Host: "[::]", First: 80, Last: 80},
	"[::1]":               {Host: "[::1]", First: 80, Last: 80},
	"[::1]:81":            {Host: "[::1]", First: 81, Last: 81},
	"[::1]:8000-8001":     {Host: "[::1]", First: 8000, Last: 8001},
	"[::ffff:127.0.0.1]":  {Host: "[::ffff:127.0.0.1]", First: 80, Last: 80},
	"localhost":           {Host: "localhost", First: 80, Last: 80},
	"localhost:81":        {Host: "localhost", First: 81, Last: 81},
}

// bad are values that Nginx refuses.
var bad = []string{
	"0", "65536", "0-3", "8010-8000", "65535-65536", "127.0.0.1:0", "127.0.0.1:", "127.0.0.1:+80",
	"127.0.0.1:80-", "::1", "::1:80", ":80", "*:", "[::1]80", "[::1]:", "[::1", "[]", "[::1%lo]:80",
	"[127.0.0.1]:80", "localhost:http", "80/x", "127.0.0.1:80/x",
}

func TestParse(t *testing.T) {
	t.Parallel()
	for value, want := range good {
		got, ok := listen.Parse(value)
		require.True(t, ok, value)
		require.Equal(t, want, got, value)
	}
	for _, value := range append(bad, "unix:/run/x.sock") {
		got, ok := listen.Parse(value)
		require.False(t, ok, "%s: %+v", value, got)
	}
}

func TestAddr(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		"80": "0.0.0.0", "*": "0.0.0.0", "[::]:80": "::", "[::1]": "::1", "127.0.0.1": "127.0.0.1",
	} {
		a, _ := listen.Parse(value)
		addr, ok := a.Addr()
		require.True(t, ok, value)
		require.Equal(t, want, addr.String(), value)
	}
	a, _ := listen.Parse("localhost")
	_, ok := a.Addr()
	require.False(t, ok)
}

// Nginx reads the values in order and stops at the first directive that it refuses, so nothing is
// bound: an accepted value leads to the error about the directive behind it.
func TestParseAsNginx(t *testing.T) {
	t.Parallel()
	binary := testbed.NeedProgram(t, "nginx", "nginx")
	dir := testbed.Dir(t)
	accepts := func(value string) bool {
		const behind = "sluice_no_such_directive"
		name := filepath.Join(dir, "nginx.conf")
		text := fmt.Sprintf("events {} http { server { listen %q; %s; } }", value, behind)
		require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
		out, err := exec.Command(binary, "-t", "-p", dir, "-e", "stderr", "-c",
			name).CombinedOutput()
		require.Error(t, err)
		return strings.Contains(string(out), behind)
	}
	for value := range good {
		require.True(t, accepts(value), value)
	}
	for _, value := range bad {
		require.False(t, accepts(value), value)
	}
}
