package envconfig

import (
	"errors"
	"os"
	"path"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluice-deploy/sluice/envconfig/internal/nearest"
	"github.com/sluice-deploy/sluice/envconfig/internal/place"
)

func FuzzParseManifest(f *testing.F) {
	m, err := Scan(fstest.MapFS{"envs/test/a/b": {Data: []byte("x")}, "envs/_base/c": {},
		SpecName: {Data: []byte(`{"paths":[{"match":"a/**","action":"pointer"}]}`)}})
	require.NoError(f, err)
	f.Add(m.JSON())
	f.Add([]byte(`{"version":2}`))
	f.Add(m.JSON()[:200])
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseManifest(data)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		again, err := ParseManifest(m.JSON())
		if err != nil || again.Digest() != m.Digest() {
			t.Fatalf("what was accepted is not what is written: %v", err)
		}
	})
}

func FuzzParseSpec(f *testing.F) {
	f.Add([]byte(
		`{"default":"test","paths":[{"match":"a/**/[b]","mode":"0640","action":"render"}],"witnesses":[{"hostname":"{env}-*"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := ParseSpec(data); err != nil && !errors.Is(err, ErrInvalid) {
			t.Fatal(err)
		}
	})
}

func FuzzRender(f *testing.F) {
	f.Add("a ${X} ${X:-d} ${Y} ${file:/run/secrets/a} $X ${")
	f.Fuzz(func(t *testing.T, template string) {
		nothing := Render{}
		if out, missing := nothing.fill(template, values{}); string(out) != template ||
			missing != nil {
			t.Fatal("with nothing declared, something was changed")
		}
		r := Render{Variables: []string{"X"}}
		marker := "\x00value\x00"
		out, missing := r.fill(template, values{lookup: func(string) (string, bool) {
			return marker, true
		}})
		if len(missing) > 0 || !strings.Contains(template, "${X") && string(out) != template {
			t.Fatal("something that was not declared was changed")
		}
	})
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"files":[{"path":"a"}],"dirs":["b"]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r := parseRecord(string(data), nil); r != nil {
			for _, p := range r.Files {
				if place.PathProblem(p.Path) != "" {
					t.Fatalf("accepted %q", p.Path)
				}
			}
		}
	})
}

func FuzzSelect(f *testing.F) {
	m := &Manifest{Environments: map[string]*Environment{"production": {Name: "production",
		Files: []File{{Path: "a"}}}}}
	for _, s := range []string{"production", "Production", " production", "../production",
		"production\x00", "prod%2f", "ргоduction", "_base", "", "production\n", "production\r",
		"production ", "/etc", ".", "..", "production/../test", "./production", "production/",
		strings.Repeat("p", 300), "PRODUCTION", "$DEPLOY_ENV"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		env, err := m.Select(name)
		if (err == nil) != (name == "production") || err == nil && env.Name != name {
			t.Fatalf("%q selects %v, %v", name, env, err)
		}
		if err != nil && (!errors.Is(err, ErrUnknownEnvironment) || strings.ContainsAny(err.Error(),
			"\x00\n")) {
			t.Fatalf("%q: %v", name, err)
		}
	})
}

func FuzzWitness(f *testing.F) {
	f.Add("env=\"production\"\nother=x\n", "env")
	f.Fuzz(func(t *testing.T, content, key string) {
		w := Witness{File: "/x", Key: key}
		if says, ok := w.read(content); ok && key == "" && says != strings.TrimRight(content,
			"\r\n") {
			t.Fatal("without a key the content is the name")
		}
	})
}

func TestNearest(t *testing.T) {
	t.Parallel()
	known := []string{"production", "sandbox", "staging", "test"}
	for name, want := range map[string]string{"stage": "staging", "prod": "production",
		"Production": "production", " test": "test", "sandobx": "sandbox",
		"tets": "test", "dev": "", "qa": "", "x": "", "": ""} {
		require.Equal(t, want, nearest.Of(name, known), name)
	}
}

// A pattern matches the same names as the plain, slow reading of the rule.
func TestMatchPathAgainstThePlainRule(t *testing.T) {
	t.Parallel()
	var plain func(pattern, name []string) bool
	plain = func(pattern, name []string) bool {
		if len(pattern) == 0 {
			return len(name) == 0
		}
		if pattern[0] == "**" {
			return plain(pattern[1:], name) || len(name) > 0 && plain(pattern, name[1:])
		}
		if len(name) == 0 {
			return false
		}
		ok, _ := path.Match(pattern[0], name[0])
		return ok && plain(pattern[1:], name[1:])
	}
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "*", "**", "a*", "?"}), 1,
			6).Draw(t, "pattern")
		name := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "ab"}), 1, 6).Draw(t, "name")
		if got, want := matchPath(strings.Join(pattern, "/"), strings.Join(name, "/")),
			plain(pattern, name); got != want {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}

// For any environments and any order of their activations, the tree is that of the last one alone.
func TestAnyOrderOfActivations(t *testing.T) {
	t.Parallel()
	names := []string{"test", "sandbox", "production"}
	paths := []string{"opt/a", "opt/b", "opt/d/c", "srv/e/f/g", "h"}
	rapid.Check(t, func(r *rapid.T) {
		source := map[string]string{SpecName: `{"paths":[{"match":"srv/**","action":"link"},{"match":"h","mode":"0600"}]}`}
		for _, env := range append([]string{"_base"}, names...) {
			for _, p := range rapid.SliceOfDistinct(rapid.SampledFrom(paths),
				rapid.ID[string]).Draw(r, env) {
				source["envs/"+env+"/"+p] = rapid.SampledFrom([]string{"", "x", "y"}).Draw(r,
					"content")
			}
			source["envs/"+env+"/opt/z"] = env
		}
		b := newBox(t, source)
		for _, env := range rapid.SliceOfN(rapid.SampledFrom(names), 1, 4).Draw(r, "order") {
			b.activate(env)
			fresh := newBox(t, source)
			fresh.activate(env)
			if diff := cmp.Diff(fresh.tree(), b.tree()); diff != "" {
				r.Fatal(diff)
			}
		}
	})
}

func TestScanRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files fstest.MapFS
		want  string
	}{
		"no directory": {fstest.MapFS{}, "no directory envs"},
		"name": {fstest.MapFS{"envs/Test/a": {}},
			`environment "Test": byte 1 is the capital 'T'`},
		"reserved":     {fstest.MapFS{"envs/default/a": {}}, "the word is reserved"},
		"file in envs": {fstest.MapFS{"envs/readme": {}}, "is not a directory"},
		"case": {fstest.MapFS{"envs/test/a/B": {}, "envs/_base/a/b": {}},
			"differ in nothing but case"},
		"file, directory": {fstest.MapFS{"envs/test/a/b": {}, "envs/_base/a": {}},
			"is a file and also a directory"},
		"reserved file": {fstest.MapFS{"envs/test/.envconfig-x": {}}, "which is reserved"},
		"pipe":          {fstest.MapFS{"envs/test/p": {Mode: os.ModeNamedPipe}}, "is a pipe"},
		"link out": {fstest.MapFS{"envs/test/l": {Mode: os.ModeSymlink,
			Data: []byte("../../../etc/passwd")}}, "leaves envs/"},
		"link to directory": {fstest.MapFS{"envs/test/l": {Mode: os.ModeSymlink, Data: []byte("d")},
			"envs/test/d/x": {}}, "only links to files"},
		"link in circle": {fstest.MapFS{"envs/test/l": {Mode: os.ModeSymlink, Data: []byte("m")},
			"envs/test/m": {Mode: os.ModeSymlink, Data: []byte("l")}}, "circle"},
		"mode": {fstest.MapFS{"envs/test/a": {},
			SpecName: {Data: []byte(`{"paths":[{"match":"a","mode":"4755"}]}`)}}, "octal digits"},
		"mode of a link": {fstest.MapFS{"envs/test/a": {Mode: 0o644},
			SpecName: {Data: []byte(`{"paths":[{"match":"a","mode":"0600","action":"link"}]}`)}},
			"with the action link it is that of envs/test/a, 0644"},
	} {
		_, err := Scan(c.files)
		if c.want == "" {
			require.NoError(t, err, name)
			continue
		}
		require.ErrorContains(t, err, c.want, name)
	}
}

func FuzzAppendQuote(f *testing.F) {
	f.Add("a\"\\\n\u007fü/~")
	f.Fuzz(func(t *testing.T, text string) {
		if quoted := string(appendQuote(nil, text)); quoted != strconv.Quote(text) {
			t.Fatalf("%q is quoted as %s", text, quoted)
		}
	})
}
