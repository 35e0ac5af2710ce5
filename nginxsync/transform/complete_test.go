package transform_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// shownElsewhere are the words of the section on what is never touched whose cases are in other
// tests than TestWhatIsNeverTouched, by the test.
var shownElsewhere = map[string][]string{
	"TestLayoutStays": {"Comments, blank lines, indentation, quotes, line ends, the order of " +
		"directives and of files", "`server_name`", "`map`", "headers"},
	"TestUpstreamsKeepTheirOwn": {"The name of an upstream", "`keepalive_requests`", "`zone`",
		"Retries"},
	"TestCodeKeepsItsText": {"Code (`*_by_lua*`, Perl, njs)", "`init_by_lua*`",
		"`init_worker_by_lua*`", "hooks of the `http` block"},
	"the command roundtrip": {"`nginxsync roundtrip FILE…`"},
}

var quotedWord = regexp.MustCompile("`[^`]+`")

// Every line of the section, and every name in it, has a case.
func TestEachLineOfWhatIsNeverTouchedHasACase(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/transform.md")
	require.NoError(t, err)
	_, section, ok := strings.Cut(string(text), "## What is never touched\n")
	require.True(t, ok)
	section, _, _ = strings.Cut(section, "\n\nHTTP/1.1")
	section = strings.ReplaceAll(section, "\n  ", " ")
	lines := strings.Split(strings.TrimSpace(section), "\n")
	require.Greater(t, len(lines), 5)
	shown := map[int]bool{}
	cover := func(word string) {
		found := false
		for i, line := range lines {
			if rest := strings.ReplaceAll(line, word, ""); rest != line {
				lines[i], found, shown[i] = rest, true, true
			}
		}
		require.True(t, found, word)
	}
	for _, words := range shownElsewhere {
		for _, word := range words {
			cover(word)
		}
	}
	for word := range untouched {
		if strings.Contains(word, " ") {
			cover(word)
		}
	}
	for word := range untouched {
		if !strings.Contains(word, " ") {
			cover(word)
		}
	}
	for i, line := range lines {
		require.True(t, shown[i], line)
		require.Empty(t, quotedWord.FindAllString(line, -1), line)
	}
}

// A file of an odd layout differs in the words that a rule replaces, and in nothing else.
func TestLayoutStays(t *testing.T) {
	t.Parallel()
	const main = "# \xef\xbb\xbfhead \"quote ' {\r\n\r\nhttp\t{ # }\r\n\tinclude b.conf; " +
		"include a.conf;\r\n\r\n  upstream 'web' { server a; }\r\n map\t$host   \"$pool\"\n{\r\ndefault  'web' ;\r\n" +
		"~^a\\.x  web;}\r\n}"
	const second = "\n\n\tserver{listen 80 ;server_name 'a.x' \"~^b{2}\" ;# one\r\n\r\n" +
		"\tlocation  \"/q r\" { proxy_hide_header  'X-\tA' ;proxy_pass  \"http://web\"; } }  "
	const first = "server { listen   80; server_name b.x; proxy_hide_header  \"X-B\" ; } #end"
	files := fstest.MapFS{"nginx.conf": {Data: []byte(main)}, "a.conf": {Data: []byte(first)},
		"b.conf": {Data: []byte(second)}}
	result, err := transform.Transform(parse(t, files),
		transform.Rules{Listen: map[int]int{80: 8080}, Snippets: bare})
	require.NoError(t, err)
	got := replaced.ReplaceAllString(result.Files["nginx.conf"], "server a; ")
	i := strings.Index(got, "default  'web'") // the added lines are at the end of the block
	require.Positive(t, i)
	require.True(t, strings.HasPrefix(main, got[:i]), got)
	require.Contains(t, got, "default  'web' ;\r\n~^a\\.x  web;}\r\n")
	require.Equal(t, second, strings.Replace(result.Files["b.conf"], "8080", "80", 1))
	require.Equal(t, first, strings.Replace(result.Files["a.conf"], "8080", "80", 1))
}

// replaced matches the text in the place of servers.
var replaced = regexp.MustCompile(`server 0\.0\.0\.1;\s+`)

// bare has a driver that adds nothing but an address to upstreams.
var bare = transform.Snippets{Upstream: func(transform.Upstream) string {
	return "server 0.0.0.1;"
}}

// An upstream keeps its name, its zone and the limits of its connections, and the directives
// that say when the next server is asked stay.
func TestUpstreamsKeepTheirOwn(t *testing.T) {
	t.Parallel()
	const upstream = "upstream Token.Web { zone secret 64k; server a; keepalive_requests 7; " +
		"keepalive_timeout 5s; keepalive_time 1h; }\n"
	const retries = "proxy_next_upstream_tries 2; proxy_next_upstream_timeout 3s; " +
		"proxy_next_upstream error http_502 non_idempotent; proxy_pass http://Token.Web; }"
	result, err := transform.Transform(parse(t, oneFile("http { "+upstream+"server { listen 80; "+
		"location / { "+retries+" } }")),
		transform.Rules{Listen: map[int]int{80: 8080}, Snippets: bare})
	require.NoError(t, err)
	got := replaced.ReplaceAllString(result.Files["nginx.conf"], "server a; ")
	require.Contains(t, got, upstream)
	require.Contains(t, got, retries)
}
