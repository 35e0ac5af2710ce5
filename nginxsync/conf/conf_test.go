package conf_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

func tree(t testing.TB, files map[string]string) *conf.Tree {
	t.Helper()
	got, err := conf.Parse(fsys(files), "nginx.conf")
	require.NoError(t, err)
	return got
}

func fsys(files map[string]string) fs.FS {
	m := fstest.MapFS{}
	for name, text := range files {
		m[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return m
}

func Example() {
	tree, err := conf.Parse(fstest.MapFS{
		"nginx.conf": {Data: []byte("http {\n    include conf.d/*.conf;\n}\n")},
		"conf.d/api.conf": {Data: []byte("upstream api {\n    server 10.0.0.1:80; # old\n    " +
			"keepalive 8;\n}\n")},
	}, "nginx.conf")
	if err != nil {
		fmt.Println(err)
		return
	}
	edit := tree.Edit()
	for n := range tree.Find("http", "upstream", "keepalive") {
		fmt.Println(n.Pos(), n.Path(), n.Arg(0))
		edit.ReplaceArgs(n.Directive, "64")
	}
	fmt.Print(edit.Diff())
	// Output:
	// conf.d/api.conf:3 [http upstream keepalive] 8
	// --- a/conf.d/api.conf
	// +++ b/conf.d/api.conf
	// @@ -1,4 +1,4 @@
	//  upstream api {
	//      server 10.0.0.1:80; # old
	// -    keepalive 8;
	// +    keepalive 64;
	//  }
}

func TestFind(t *testing.T) {
	t.Parallel()
	got := tree(t, map[string]string{
		"nginx.conf": "events {}\nhttp { include a.conf; server { include loc.conf; location / { " +
			"proxy_pass http://c; } } }",
		"a.conf":   "include loc.conf; upstream u { server x; }",
		"loc.conf": "gzip on; location /in { if ($a) { proxy_pass http://d; } }",
	})
	for _, c := range []struct {
		path string
		want string
	}{
		{"events", "nginx.conf:1"},
		{"http server", "nginx.conf:2"},
		{"http gzip", "loc.conf:1"},
		{"http server gzip", "loc.conf:1"},
		{"http upstream server", "a.conf:1"},
		{"** gzip", "loc.conf:1 loc.conf:1"},
		{"** proxy_pass", "loc.conf:1 nginx.conf:2 loc.conf:1"},
		{"http ** proxy_pass", "loc.conf:1 nginx.conf:2 loc.conf:1"},
		{"http * location", "nginx.conf:2 loc.conf:1"},
		{"http server location proxy_pass", "nginx.conf:2"},
		{"nothing", ""},
	} {
		var at []string
		for n := range got.Find(strings.Fields(c.path)...) {
			at = append(at, n.Pos().String())
		}
		require.ElementsMatch(t, strings.Fields(c.want), at, c.path)
	}
	for n := range got.Find("http", "server", "location", "if", "proxy_pass") {
		require.Equal(t, []string{"http", "server", "location", "if", "proxy_pass"}, n.Path())
		require.Equal(t, "if", n.Parent().Name())
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"missing file", map[string]string{"nginx.conf": "\n  include a.conf;"},
			"nginx.conf:2:3: include a.conf: read: open a.conf: file does not exist"},
		{"no main file", map[string]string{}, "nginx.conf: read: open nginx.conf: file does not " +
			"exist"},
		{"cycle", map[string]string{"nginx.conf": "include a.conf;",
			"a.conf": "http { include b.conf; }", "b.conf": "\ninclude a.conf;"},
			"b.conf:2:1: include a.conf: include cycle: a.conf > b.conf > a.conf"},
		{"self by glob", map[string]string{"nginx.conf": "include *.conf;"},
			"include cycle: nginx.conf > nginx.conf"},
		{"outside", map[string]string{"nginx.conf": "include /etc/passwd;"},
			"outside the tree, which stands for /etc/nginx"},
		{"outside by dots", map[string]string{"nginx.conf": "include ../x;"}, "outside the tree"},
		{"directory", map[string]string{"nginx.conf": "include d;", "d/x": ""},
			"not a regular file"},
		{"args", map[string]string{"nginx.conf": "include a b;"},
			`invalid number of arguments in "include" directive`},
		{"open block", map[string]string{"nginx.conf": "http {\n"},
			`nginx.conf:2:1: unexpected end of file, expecting "}"`},
		{"block over files", map[string]string{"nginx.conf": "http { include a; }",
			"a": "server {"}, `a:1:9: unexpected end of file, expecting "}"`},
		{"extra brace", map[string]string{"nginx.conf": "http {\n}\n}"},
			`nginx.conf:3:1: unexpected "}"`},
		{"bom", map[string]string{"nginx.conf": "\ufeffuser x;"}, "byte order mark"},
		{"deep blocks", map[string]string{"nginx.conf": strings.Repeat("a {", 100) +
			strings.Repeat("}", 100)}, "blocks nest deeper than 64"},
	} {
		_, err := conf.Parse(fsys(c.files), "nginx.conf")
		var e *conf.Error
		require.ErrorAs(t, err, &e, c.name)
		require.ErrorContains(t, err, c.want, c.name)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	files := fsys(map[string]string{"nginx.conf": "include a; include a; include a;",
		"a": "include b; include b; include b;", "b": "x y; x y; x y;"})
	_, err := conf.Parser{MaxDirectives: 40}.Parse(files, "nginx.conf")
	require.NoError(t, err)
	_, err = conf.Parser{MaxDirectives: 38}.Parse(files, "nginx.conf")
	require.ErrorContains(t, err, "more than 38 directives")
	_, err = conf.Parser{MaxFileSize: 10}.Parse(files, "nginx.conf")
	require.ErrorContains(t, err, "larger than allowed: 32 bytes, limit is 10")
	_, err = conf.Parser{MaxSize: 40}.Parse(files, "nginx.conf")
	require.ErrorContains(t, err, "limit is 8")
	_, err = conf.Parser{MaxDepth: 2}.Parse(files, "nginx.conf")
	require.ErrorContains(t, err, "includes nest deeper than 2")
}

// An exponential tree of includes is refused without walking it.
func TestIncludeBomb(t *testing.T) {
	t.Parallel()
	files := map[string]string{"30": "x y;"}
	for i := range 30 {
		files[fmt.Sprint(i)] = fmt.Sprintf("include %d; include %d;", i+1, i+1)
	}
	_, err := conf.Parse(fsys(files), "0")
	require.ErrorContains(t, err, "directives, those of included files counted")
}

// A pattern matches the files that nginx -T prints, in the same order.
func TestGlobsAsNginxResolvesThem(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"d/b.conf", "d/a.conf", "d/.hidden.conf", "d/B.conf",
		"d/a-1.conf", "d/a.1.conf", "d/c.txt", "e/x.conf", "d-e/x.conf", "d.e/x.conf", "d/ä.conf"} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("# "+name+"\n"), 0o600))
	}
	for _, pattern := range []string{"d/*.conf", "*/*.conf", "d/[ab].conf", "d/[!a]*.conf",
		"d/[a-c]*", "d/?.conf", "nothing/*.conf", "d/.*.conf", "*/x.conf", "d/a*", "[de]/*"} {
		main := "pid " + dir + "/pid;\nevents {}\ninclude " + pattern + ";\n"
		require.NoError(t, os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(main), 0o600))
		out, err := exec.Command("nginx", "-T", "-q", "-p", dir, "-c", dir+"/nginx.conf", "-e",
			"/dev/null").CombinedOutput()
		require.NoError(t, err, "%s", out)
		var want []string
		for _, m := range regexp.MustCompile(
			`(?m)^# configuration file (.*):$`).FindAllStringSubmatch(string(out), -1)[1:] {
			rel, err := filepath.Rel(dir, m[1])
			require.NoError(t, err)
			want = append(want, rel)
		}
		got, err := conf.Parse(os.DirFS(dir), "nginx.conf")
		require.NoError(t, err, pattern)
		var names []string
		for n := range got.Find("include") {
			for _, f := range n.Included() {
				names = append(names, f.Name)
			}
		}
		require.Equal(t, want, names, pattern)
	}
}

func TestValues(t *testing.T) {
	t.Parallel()
	got := tree(t, map[string]string{"nginx.conf": `a 'b c' "d\"e" f\;g \.h$ "\t" "" ${i}j k"l;`})
	d := got.Main.Body[0]
	require.Equal(t, []string{"b c", `d"e`, `f\;g`, `\.h$`, "\t", "", "${i}j", `k"l`}, d.Args())
	require.Equal(t, `"d\"e"`, d.RawArg(1))
	require.Equal(t, "", d.Arg(99))
}

// A word that Quote made is read back as it was.
func TestQuote(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.OneOf(rapid.String(), rapid.StringMatching(`[a$'"{}\\ ;#\n)]{0,8}`)).Draw(t,
			"value")
		f, err := conf.ParseFile("x", "a "+conf.Quote(value)+" b;")
		if err != nil {
			t.Fatalf("%q is written %s: %v", value, conf.Quote(value), err)
		}
		if d := f.Body[0]; d.NumArgs() != 2 || d.Arg(0) != value {
			t.Fatalf("%q is written %s and read back %q", value, conf.Quote(value), d.Args())
		}
	})
}

func TestEdits(t *testing.T) {
	t.Parallel()
	const text = "http {\n    upstream u {\n        server a; # one\n        server b;\n    }\n  " +
		"  server { listen 80; }\n}\n"
	for _, c := range []struct {
		name string
		edit func(e *conf.Edit, find func(path ...string) *conf.Directive)
		want string
	}{
		{"nothing", func(*conf.Edit, func(...string) *conf.Directive) {}, text},
		{"replace", func(e *conf.Edit, find func(...string) *conf.Directive) {
			e.Replace(find("http", "server", "listen"), "listen 8080;")
		}, strings.Replace(text, "listen 80;", "listen 8080;", 1)},
		{"rename", func(e *conf.Edit, find func(...string) *conf.Directive) {
			e.Rename(find("http", "upstream"), "up stream")
		},
			strings.Replace(text, "upstream", `"up stream"`, 1)},
		{"args", func(e *conf.Edit, find func(...string) *conf.Directive) {
			e.ReplaceArgs(find("http", "server", "listen"), "81", "a b")
		}, strings.Replace(text, "listen 80;", `listen 81 "a b";`, 1)},
		{"insert arg", func(e *conf.Edit, find func(...string) *conf.Directive) {
			e.InsertArg(find("http", "server", "listen"), 1, "ssl")
		}, strings.Replace(text, "listen 80;", "listen 80 ssl;", 1)},
		{"remove line", func(e *conf.Edit, find func(...string) *conf.Directive) {
			e.Remove(
				find("http", "upstream"))
		},
			"http {\n    server { listen 80; }\n}\n"},
		{"remove in line", func(e *conf.Edit,
			find func(...string) *conf.Directive) {
			e.Remove(find("http", "server", "listen"))
		},
			strings.Replace(text, "listen 80;", "", 1)},
		{"remove keeps the comment", func(e *conf.Edit,
			find func(...string) *conf.Directive) {
			e.Remove(find("http", "upstream", "server"))
		},
			strings.Replace(text, "server a; # one", " # one", 1)},
		{"before and after", func(e *conf.Edit, find func(...string) *conf.Directive) {
			e.InsertBefore(find("http", "upstream"), "a b;\nc d;")
			e.InsertAfter(find("http", "upstream"), "e f;")
		}, strings.Replace(strings.Replace(text, "    upstream", "    a b;\n    c d;\n    upstream",
			1), "    }\n", "    }\n    e f;\n", 1)},
		{"prepend and append", func(e *conf.Edit, find func(...string) *conf.Directive) {
			e.Prepend(find("http", "upstream"), "first;")
			e.Append(find("http", "upstream"), "last;")
			e.Append(find("http", "upstream"), "last;") // once
		}, strings.Replace(strings.Replace(text, "u {\n", "u {\n        first;\n", 1),
			"server b;\n", "server b;\n        last;\n", 1)},
		{"append in line", func(e *conf.Edit,
			find func(...string) *conf.Directive) {
			e.Append(find("http", "server"), "x;")
		},
			strings.Replace(text, "listen 80; }", "listen 80; \n        x;\n    }", 1)},
		{"body", func(e *conf.Edit, find func(...string) *conf.Directive) {
			e.ReplaceBody(find("http", "server"), " deny all; ")
		},
			strings.Replace(text, " listen 80; ", " deny all; ", 1)},
	} {
		got := tree(t, map[string]string{"nginx.conf": text})
		e := got.Edit()
		c.edit(e, func(path ...string) *conf.Directive {
			for n := range got.Find(path...) {
				return n.Directive
			}
			t.Fatal(c.name, path)
			return nil
		})
		files, err := e.Files()
		require.NoError(t, err, c.name)
		require.Equal(t, c.want, files["nginx.conf"], c.name)
	}
}

func TestEditsThatOverlap(t *testing.T) {
	t.Parallel()
	got := tree(t, map[string]string{"nginx.conf": "http {\n  gzip on;\n}\n"})
	e := got.Edit()
	for n := range got.Find("http") {
		e.Replace(n.Directive, "x;")
	}
	for n := range got.Find("http", "gzip") {
		e.ReplaceArgs(n.Directive, "off")
	}
	_, err := e.Files()
	require.ErrorContains(t, err, "nginx.conf:2:7: two changes of the same text")
	e = got.Edit()
	e.AddFile("nginx.conf", "")
	_, err = e.Files()
	require.ErrorContains(t, err, "already in the tree")
}

// drawConf is a well-formed configuration.
func drawConf(t *rapid.T) string {
	word := rapid.SampledFrom([]string{"a", "listen", `"q u"`, `'\''`, "$v", "${v}x", `\;`, "]",
		"80", "~*\\.php$", `""`})
	space := rapid.SampledFrom([]string{" ", "\n", "\t", "  ", " # c {\n", "\r\n", "\n\n    "})
	gap := rapid.SampledFrom([]string{"", " ", "\n", "# } \" '\n", "\r\n"})
	var b strings.Builder
	var body func(depth int)
	body = func(depth int) {
		for range rapid.IntRange(0, 4).Draw(t, "n") {
			b.WriteString(gap.Draw(t, "gap"))
			if rapid.IntRange(0, 9).Draw(t, "lua") == 0 {
				b.WriteString("content_by_lua_block {" +
					rapid.SampledFrom([]string{"", " x = {} ", "\n-- }\n", `"}"`, "[[}]]",
						"--[=[ }]]]=]"}).Draw(t, "code") + "}")
				continue
			}
			b.WriteString(word.Draw(t, "name"))
			for range rapid.IntRange(0, 3).Draw(t, "args") {
				b.WriteString(space.Draw(t, "space"))
				b.WriteString(word.Draw(t, "word"))
			}
			if depth < 4 && rapid.Bool().Draw(t, "block") {
				b.WriteString(" {")
				body(depth + 1)
				b.WriteString("}")
			} else {
				b.WriteString(rapid.SampledFrom([]string{";", " ;"}).Draw(t, "end"))
			}
		}
		b.WriteString(gap.Draw(t, "gap"))
	}
	body(0)
	return b.String()
}

// A file that is rebuilt from its parts equals the original; an edit of one directive changes that
// directive alone.
func TestRoundTripAndEditProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := drawConf(t)
		f, err := conf.ParseFile("x", text)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if f.Rebuild() != text {
			t.Fatalf("%q comes out as %q", text, f.Rebuild())
		}
		got, err := conf.Parse(fsys(map[string]string{"nginx.conf": text}), "nginx.conf")
		if err != nil {
			t.Fatal(err)
		}
		var all []conf.Node
		for n := range got.All() {
			all = append(all, n)
		}
		if len(all) == 0 {
			return
		}
		i := rapid.IntRange(0, len(all)-1).Draw(t, "i")
		e := got.Edit()
		values := rapid.SliceOfN(rapid.StringN(0, 4, 8), 0, 3).Draw(t, "values")
		e.ReplaceArgs(all[i].Directive, values...)
		files, err := e.Files()
		if err != nil {
			t.Fatal(err)
		}
		after, err := conf.Parse(fsys(files), "nginx.conf")
		if err != nil {
			t.Fatalf("%q after %q: %v", files["nginx.conf"], text, err)
		}
		j := 0
		for n := range after.All() {
			want := all[j].Args()
			if j == i {
				want = values
			}
			if n.Name() != all[j].Name() || strings.Join(n.Args(), "\x00") != strings.Join(want,
				"\x00") || n.IsLua() && n.Body() != all[j].Body() {
				t.Fatalf("directive %d of %q became %q, want %q", j, text, n.Text(), want)
			}
			j++
		}
		if j != len(all) {
			t.Fatalf("%d directives, before %d", j, len(all))
		}
	})
}

// FuzzParse requires that ParseFile never panics and that an accepted text is rebuilt unchanged.
func FuzzParse(f *testing.F) {
	for _, text := range []string{"", "a b;", "a { b c; }", "x_by_lua_block { }",
		"a \"b\\\"c\" '${d}';", "include x;"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := conf.ParseFile("x", text)
		if checked := conf.Check("x", text); (err == nil) != (checked == nil) &&
			!strings.Contains(err.Error(), "nest deeper") && !strings.Contains(err.Error(),
			"byte order mark") {
			t.Fatalf("parse says %v, check %v", err, checked)
		}
		if err != nil {
			var e *conf.Error
			if !errors.As(err, &e) || e.Line < 1 || e.Col < 1 {
				t.Fatalf("%v is no *conf.Error with a place", err)
			}
			return
		}
		if got.Rebuild() != text {
			t.Fatalf("%q comes out as %q", text, got.Rebuild())
		}
		var lines conf.PosReader
		for _, d := range got.Body {
			_, _ = d.Args(), d.Body()
			if at := lines.Pos(d); at != d.Pos() {
				t.Fatalf("%s is at %v, one after the other at %v", d.Name(), d.Pos(), at)
			}
		}
	})
}
