package transform_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// Nginx knows a variable by its name in lower case, and a location's own set is not run where the
// rewrites end before it: each text that a target may have counts.
func TestTargetsAreFollowedAsNginxSetsThem(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ http, server, refused string }{
		"capitals in a set": {"",
			`location / { set $Backend 10.0.0.1:81; set $backend a; proxy_pass http://$backend; }`,
			"10.0.0.1:81"},
		"capitals in a map": {`map $uri $Pool { default 10.0.0.1:81; }`,
			`location / { proxy_pass http://$pool; }`, "10.0.0.1:81"},
		"capitals in the target": {`map $uri $pool { default 10.0.0.1:81; }`,
			`location / { proxy_pass http://$POOL; }`, "10.0.0.1:81"},
		"two maps": {`map $uri $pool { default a; } map $uri $POOL { default 10.0.0.1:81; }`,
			`location / { proxy_pass http://$pool; }`, "10.0.0.1:81"},
		"capitals in a capture": {"",
			`location ~ ^/(?<BACKEND>.*)$ { set $backend a; proxy_pass http://$backend; }`,
			"only at run time"},
		"a break before the set": {"",
			`set $b 10.0.0.1:81; location / { if ($arg_x) { break; } set $b a; proxy_pass http://$b; }`,
			"10.0.0.1:81"},
		"a rewrite with break before the set": {"",
			`set $b 10.0.0.1:81; location / { rewrite ^/x /y break; set $b a; proxy_pass http://$b; }`,
			"10.0.0.1:81"},
		"a set that limit_except does not run": {"",
			`set $b 10.0.0.1:81; location / { set $b a; limit_except POST { proxy_pass http://$b; } }`,
			"10.0.0.1:81"},
		"a break behind the set": {"",
			`set $b 10.0.0.1:81; location / { set $b a; if ($arg_x) { break; } proxy_pass http://$b; }`,
			""},
		"a return before the set": {"",
			`set $b 10.0.0.1:81; location / { if ($arg_x) { return 204; } set $b a; proxy_pass http://$b; }`,
			""},
	} {
		tree := parse(t, oneFile("events { }\nhttp {\nupstream a { server 10.9.9.1:80; }\n"+c.http+
			"\nserver {\nlisten 80;\n"+c.server+"\n}\n}\n"))
		_, err := transform.Transform(tree, transform.Rules{Listen: map[int]int{80: 8080},
			Paths: map[string]string{"/": "/"}, Snippets: short})
		if c.refused == "" {
			require.NoError(t, err, name)
		} else {
			require.ErrorContains(t, err, c.refused, name)
		}
	}
}

// A key that is a variable has the token, or the tree is refused with the place that sets it.
func TestKeysThatAreVariables(t *testing.T) {
	t.Parallel()
	for server, refused := range map[string]string{
		`location / { set $memcached_key $uri; memcached_pass a; }`:                     "",
		`location / { set $Memcached_KEY $uri; memcached_pass a; }`:                     "",
		`location ~ ^/m(?<memcached_key>.*)$ { memcached_pass a; }`:                     "nginx.conf:6:1: location",
		`location ~ ^/m(?'Memcached_Key'.*)$ { memcached_pass a; }`:                     "nginx.conf:6:1: location",
		`location / { rewrite ^/m(?P<memc_key>.*)$ /x break; memcached_pass a; }`:       "rewrite: an expression captures $memc_key",
		`server_name ~^(?<redis_key>.*)$; location / { memcached_pass a; }`:             "server_name: an expression",
		`location / { if ($uri ~ ^/m(?<memcached_key>.*)$) { set $x 1; } return 204; }`: "if: an expression captures",
	} {
		tree := parse(t, oneFile("events { }\nhttp {\nupstream a { server 10.9.9.1:80; }\nserver "+
			"{\n"+
			"listen 80;\n"+server+"\n}\n}\n"))
		result, err := transform.Transform(tree, transform.Rules{Listen: map[int]int{80: 8080},
			Paths: map[string]string{"/": "/"}, Snippets: short})
		if refused != "" {
			require.ErrorContains(t, err, refused, server)
			continue
		}
		require.NoError(t, err, server)
		require.Contains(t, strings.ToLower(result.Files["nginx.conf"]),
			"set $memcached_key $memcached_key$sluice_token;")
	}
}

// A bucket of a hash that is too small for the maps of targets grows; one that is wide enough
// stays.
func TestHashOfTheMaps(t *testing.T) {
	t.Parallel()
	for have, want := range map[string]string{
		"map_hash_bucket_size 64; map_hash_max_size 1024;": "map_hash_bucket_size 256; " +
			"map_hash_max_size 65536;",
		"map_hash_bucket_size 512; map_hash_max_size 131072;": "map_hash_bucket_size 512; " +
			"map_hash_max_size 131072;",
	} {
		tree := parse(t, oneFile("events { }\nhttp {\n"+have+"\nupstream a { server 10.9.9.1; }\n"+
			"server { listen 80; location / { set $p a; if ($arg_x) { set $p 10.0.0.1:81; } "+
			"proxy_pass http://$p; } }\n}\n"))
		result, err := transform.Transform(tree, transform.Rules{Listen: map[int]int{80: 8080},
			Pass: map[string]string{"10.0.0.1:81": "a"}, Snippets: short})
		require.NoError(t, err)
		require.Contains(t, result.Files["nginx.conf"], want)
	}
}

// Texts that differ in case only, of which one is mapped to an upstream, cannot be told apart.
func TestTextsThatDifferInCase(t *testing.T) {
	t.Parallel()
	tree := parse(t, oneFile("events { }\nhttp {\nupstream a { server 10.9.9.1; }\n"+
		"server { listen 80; location / { set $p http://a/X; if ($arg_x) { set $p http://a/x; } "+
		"if ($arg_y) { set $p http://B/x; } if ($arg_z) { set $p http://b/X; } proxy_pass $p; } "+
		"}\n}\n"))
	rules := transform.Rules{Listen: map[int]int{80: 8080}, Snippets: short,
		Pass: map[string]string{"B": "a", "b": "a"}}
	_, err := transform.Transform(tree, rules)
	require.ErrorContains(t, err, "differ in case only")
}
