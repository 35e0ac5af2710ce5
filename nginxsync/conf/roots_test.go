package conf_test

import (
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

func TestRoots(t *testing.T) {
	t.Parallel()
	several := conf.Roots{"/etc/nginx": ".", "/usr/share/nginx": "share", "/etc/nginx/ssl": "tls/x"}
	for _, c := range []struct {
		roots     conf.Roots
		abs, name string
	}{
		{nil, "/etc/nginx/conf.d/a", "conf.d/a"},
		{nil, "/etc/nginx", "."},
		{nil, "/etc/nginxother/a", ""},
		{nil, "/etc/nginx/../passwd", ""},
		{several, "/usr/share/nginx/modules/a.conf", "share/modules/a.conf"},
		{several, "/etc/nginx/ssl/a", "tls/x/a"},
		{several, "/etc/letsencrypt/a", ""},
		{conf.Roots{"/": "."}, "/etc/nginx/a", "etc/nginx/a"},
	} {
		name, ok := c.roots.Name(c.abs)
		require.Equal(t, c.name != "", ok, c.abs)
		require.Equal(t, c.name, name, c.abs)
		if ok && name != "." {
			back, ok := c.roots.Abs(name)
			require.True(t, ok)
			require.Equal(t, c.abs, back)
		}
	}
	for _, bad := range []conf.Roots{{"etc": "."}, {"/etc/": "."}, {"/etc/../x": "."},
		{"/etc": "/x"}, {"/etc": "../x"}, {"/etc": ""}} {
		require.Error(t, bad.Validate(), "%v", bad)
	}
	require.NoError(t, several.Validate())
}

// An absolute include is taken from the root that holds its path, with or without a pattern at its
// end.
func TestIncludesOfSeveralRoots(t *testing.T) {
	t.Parallel()
	files := fstest.MapFS{
		"nginx.conf": {Data: []byte(
			"include /usr/share/nginx/modules/*.conf;\nhttp { include " +
				"/etc/letsencrypt/options-ssl-nginx.conf; include x.conf; }")},
		"x.conf":                    {Data: []byte("gzip on;")},
		"share/modules/a.conf":      {Data: []byte("load_module a.so;")},
		"le/options-ssl-nginx.conf": {Data: []byte("ssl_session_timeout 1440m;")},
	}
	roots := conf.Roots{"/etc/nginx": ".", "/usr/share/nginx": "share", "/etc/letsencrypt": "le"}
	tree, err := conf.Parser{Roots: roots}.Parse(files, "nginx.conf")
	require.NoError(t, err)
	require.Len(t, tree.Files(), 4)
	_, err = conf.Parse(files, "nginx.conf")
	require.ErrorContains(t, err, "nginx.conf:1:1: include /usr/share/nginx/modules/*.conf: "+
		"outside the tree, which stands for /etc/nginx; say under roots where it is taken from")
}
