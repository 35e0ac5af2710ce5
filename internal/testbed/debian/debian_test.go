//go:build linux

package debian

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The machine's mirror is found in both formats of apt's sources, and only it.
func TestMirror(t *testing.T) {
	t.Parallel()
	const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
	for name, files := range map[string]map[string]string{
		"deb822": {
			"sources.list.d/debian.sources": "Types: deb\n# Comment: here\n" +
				"URIs: http://mirror.example/debian\nSuites: trixie trixie-updates\n" +
				"Components: main contrib\nSigned-By: " + keyring + "\n\nTypes: deb\n" +
				"URIs: http://mirror.example/debian-security\nSuites: trixie-security\n" +
				"Components: main\n",
			"sources.list.d/other.sources": "Types: deb\nURIs: http://other.example\n" +
				"Suites: nodistro\nComponents: main\n",
		},
		"one line": {
			"sources.list": "# deb http://old.example/debian trixie main\n" +
				"deb-src http://source.example/debian trixie main\n" +
				"deb http://contrib.example/debian trixie contrib\n" +
				"deb http://mirror.example/debian-security trixie-security main\n" +
				"deb [arch=amd64 signed-by=" + keyring + "] http://mirror.example/debian " +
				"trixie main non-free # comment\n",
		},
		"switched off first": {
			"sources.list.d/a.sources": "Types: deb\nEnabled: no\nURIs: http://off.example\n" +
				"Suites: trixie\nComponents: main\n",
			"sources.list": "deb [signed-by=" + keyring + "] http://mirror.example/debian " +
				"trixie main\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			etc := t.TempDir()
			require.NoError(t, os.Mkdir(filepath.Join(etc, "sources.list.d"), 0o755))
			for file, text := range files {
				require.NoError(t, os.WriteFile(filepath.Join(etc, file), []byte(text), 0o600))
			}
			s, err := mirror(etc, "debian", "trixie")
			require.NoError(t, err)
			require.Equal(t, "deb [signed-by="+keyring+"] http://mirror.example/debian sid main\n",
				s.line("sid"))
			_, err = mirror(etc, "debian", "forky")
			require.ErrorContains(t, err, "no source of apt has the suite forky")
			_, err = mirror(etc, "ubuntu", "noble")
			require.ErrorContains(t, err, "this machine is not Debian (ID=ubuntu)")
		})
	}
}

func TestPlan(t *testing.T) {
	t.Parallel()
	wanted, versions := planned([]byte("Reading package lists...\n" +
		"Inst perl-base (5.40.1-6 Debian:13/stable [amd64])\n" +
		"Inst nginx (1.26.3-3+deb13u10 Debian:13/stable [amd64])\n" +
		"Inst libnginx-mod-http-lua (1:0.10.28-2 Debian:13/stable [amd64])\n" +
		"Conf nginx (1.26.3-3+deb13u10 Debian:13/stable [amd64])\n"))
	require.Equal(t, []string{"libnginx-mod-http-lua=1:0.10.28-2", "nginx=1.26.3-3+deb13u10"},
		wanted)
	require.Equal(t, "1.26.3", upstreamOf(versions["nginx"]))
	require.Equal(t, "0.10.28", upstreamOf(versions["libnginx-mod-http-lua"]))
	require.Equal(t, "1.30", upstreamOf("1.30"))
}

// A release that could not be fetched says why, until it could.
func TestCached(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	r := Release{Suite: "trixie", Title: "Debian 13"}
	_, err := r.Cached()
	require.ErrorIs(t, err, ErrMissing)
	dir, err := r.dir()
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(dir, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, failure), []byte("no mirror"), 0o600))
	_, err = r.Cached()
	require.EqualError(t, err, "Debian 13: Nginx could not be fetched: no mirror")
	require.False(t, errors.Is(err, ErrMissing))
	want := Root{Dir: filepath.Join(dir, "1.26.3-a"), Nginx: "1.26.3", Lua: "0.10.28"}
	require.NoError(t, save(dir, want))
	got, err := r.Cached()
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.NoFileExists(t, filepath.Join(dir, failure))
}

// Without an answer of the mirror the root of an earlier day stays, with the reason; without a
// root, the reason alone.
func TestFetchFails(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("PATH", t.TempDir()) // which has no apt-get
	r := Release{Suite: "trixie", Title: "Debian 13"}
	_, err := r.Fetch(t.Context())
	require.Error(t, err)
	_, err = r.Cached()
	require.ErrorContains(t, err, "Debian 13: Nginx could not be fetched: ")
	dir, err := r.dir()
	require.NoError(t, err)
	old := Root{Dir: filepath.Join(dir, "1.26.2-a"), Nginx: "1.26.2", Lua: "0.10.27",
		Fetched: time.Now().Add(-2 * fresh).UTC().Truncate(time.Second)}
	require.NoError(t, save(dir, old))
	got, err := r.Fetch(t.Context())
	require.Error(t, err)
	require.Equal(t, old, got)
	old.Fetched = time.Now().UTC().Truncate(time.Second)
	require.NoError(t, save(dir, old))
	got, err = r.Fetch(t.Context())
	require.NoError(t, err, "a root of today is not asked for")
	require.Equal(t, old, got)
}
