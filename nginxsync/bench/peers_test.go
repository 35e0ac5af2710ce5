package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tufanbarisyildirim/gonginx/dumper"
	"github.com/tufanbarisyildirim/gonginx/parser"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

// forms are configurations that Nginx accepts, one for each thing that readers of it get wrong.
// They stand in a server block.
var forms = []struct{ what, text string }{
	{"order of an upstream", "} upstream u { server 127.0.0.1:1 weight=2 max_fails=3; keepalive " +
		"4; server 127.0.0.1:2; } server {"},
	{"trailing comments", "listen 81; # one\nlisten 82; # two\n"},
	{"quotes", "location ~ \"^/(\\d{2})/x\" { return 200 'it\\'s'; }"},
	{"escaped semicolon", "location ~ a\\;b { return 204; }"},
	{"${name} in a word", "set $a b; return 200 x${a}y;"},
	{"hash sign in a word", "location /a#b { return 204; }"},
	{"# after a quote", "return 200 \"# no comment\";"},
	{"brace in a regular expression", "location ~ \"a{2}\" { return 204; }"},
	{"Lua: brace in a string", "location / { content_by_lua_block { ngx.say(\"}\") } }"},
	{"Lua: quote in a comment", "location / { content_by_lua_block {\n-- it's\nngx.say(1) } }"},
	{"Lua: long string", "location / { content_by_lua_block { local a = [[ } ]] ngx.say(a) } }"},
	{"Lua: long comment", "location / { content_by_lua_block { --[==[ } ]] ]==] ngx.say(1) } }"},
	{"Lua: length of a table", "location / { content_by_lua_block { local t = {} ngx.say(#t) } }"},
	{"Lua: lines as they are", "location / { content_by_lua_block {\n    if true then\n        " +
		"ngx.say(1)\n    end\n} }"},
	{"map: volatile", "} map $uri $v { volatile; default 1; } server {"},
}

const around = `load_module /usr/lib/nginx/modules/ndk_http_module.so;
load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;
events {}
http { lua_package_path "/usr/share/lua/5.1/?.lua;;"; server { listen 80; `

// TestPeers prints the outcome of each form. Nothing is asserted but that Nginx accepts it.
func TestPeers(t *testing.T) {
	if testing.Short() {
		t.Skip("a measurement, not a test")
	}
	var b strings.Builder
	b.WriteString("| form that `nginx -t` accepts | nginxsync/conf | gonginx |\n| --- | --- | " +
		"--- |\n")
	dir := t.TempDir()
	for _, f := range forms {
		text := around + f.text + "\n} }\n"
		name := filepath.Join(dir, "nginx.conf")
		if err := os.WriteFile(name, []byte("pid "+dir+"/pid;\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("nginx", "-t", "-q", "-p", dir, "-c", name, "-e",
			"/dev/null").CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", f.what, err, out)
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", f.what, ours(text), gonginx(text))
	}
	fmt.Print(b.String())
	if *write {
		rewrite(t, "peers", b.String())
	}
}

func ours(text string) string {
	f, err := conf.ParseFile("nginx.conf", text)
	switch {
	case err != nil:
		return "refused"
	case f.Rebuild() != text:
		return "changed"
	}
	return "same bytes"
}

func gonginx(text string) (verdict string) {
	defer func() {
		if recover() != nil {
			verdict = "panic"
		}
	}()
	c, err := parser.NewStringParser(text, parser.WithSkipValidDirectivesErr()).Parse()
	if err != nil {
		return "refused"
	}
	out := dumper.DumpConfig(c, dumper.IndentedStyle)
	switch {
	case out == text:
		return "same bytes"
	case !slices.Equal(meaning(text), meaning(out)):
		return "other directives"
	case strings.Count(out, "#") != strings.Count(text, "#"):
		return "comments lost"
	}
	return "same directives, other layout"
}

// meaning is Nginx's reading of the text: the words of all directives in their order, the code of
// Lua blocks with its lines.
func meaning(text string) []string {
	tree, err := conf.ParseFile("nginx.conf", text)
	if err != nil {
		return []string{err.Error()}
	}
	var list []string
	var walk func([]*conf.Directive)
	walk = func(ds []*conf.Directive) {
		for _, d := range ds {
			list = append(append(list, d.Name()), d.Args()...)
			if d.IsLua() {
				list = append(list, strings.TrimSpace(d.Body()))
			}
			walk(d.Children())
		}
	}
	walk(tree.Body)
	return list
}
