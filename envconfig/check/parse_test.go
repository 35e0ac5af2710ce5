package check

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluice-deploy/sluice/envconfig"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ format, in, want string }{
		{"properties", "a=1\nb : two\nc three\n# d=4\n! e=5\n\n  f = ${x}  \n",
			"a number 1 1|b string 2 two|c string 3 three|f string 7 ${x}  "},
		{"properties", "long = a,\\\n   b\\\\\nnext=\\u00e9\\t\n", "long string 1 a,b\\|next " +
			"string 3 é\t"},
		{"properties", "a\\ b\\=c=d\r\nempty\r\n", "a b=c string 1 d|empty string 2 "},
		{"properties", "a=\\u12", "line 1: \\u is not followed by four hexadecimal digits"},
		{"properties", "a=1\na=2", `line 2: key "a" stands in line 1 already`},
		{"ini", "top=1\n[s]\nk = v ; x\nb: true\n", "top number 1 1|s.k string 3 v ; x|s.b bool " +
			"4 true"},
		{"ini", "[s]\na=1\na=2\n[t]\n[s]\nb\n", "s.a number 2 1|s.a#2 number 3 2"},
		{"ini", "[s\n", "line 1: a section is [name]"},
		{"ini", "word", ""},
		{"dotenv", "export A=1\nB='x y' # c\nC=\"a\nb\\\"\"\nD=x # c\n", "A number 1 1|B string " +
			"2 x y|C string 3 a\nb\\\"|D string 5 x"},
		{"dotenv", "A=$(rm -rf /)\n", "A string 1 $(rm -rf /)"},
		{"dotenv", "A='x\n", "line 1: the quotation mark is never closed"},
		{"dotenv", "1A=x\n", "line 1: is not NAME=VALUE"},
		{"json", `{"a":{"b":[1,true,null,"x"]},"n":12345678901234567890}`,
			"a.b list 1 |a.b[0] number 1 1|a.b[1] bool 1 true|a.b[2] null 1 |a.b[3] string 1 x|n " +
				"number 1 12345678901234567890"},
		{"json", "\ufeff{\"a\":1}", "a number 1 1"},
		{"json", "{\"a\":1,\n\"a\":2}", `line 2: key "a" stands there twice`},
		{"json", `{"a":1} x`, "line 1: data after the end of the value"},
		{"json", `{"a":`, "line 1: is not valid JSON"},
		{"json", strings.Repeat("[", 10_000), "line 1: nested too deeply"},
		{"yaml", "a:\n  b: 1\n  c: [x, no]\nd: ~\n", "a.b number 2 1|a.c list 3 |a.c[0] string 3 " +
			"x|a.c[1] string 3 no|d null 4 ~"},
		{"yaml", "x: &x {p: 1, q: 2}\ny:\n  <<: *x\n  q: 3\n", "x.p number 1 1|x.q number 1 " +
			"2|y.p number 1 1|y.q number 4 3"},
		{"yaml", "a: 1\n---\na: 2\n", "a number 1 1|document2.a number 3 2"},
		{"yaml", "a: 1\nb: 2\na: 3\n", `line 3: key "a" stands in line 1 already`},
		{"yaml", "a: [", "line 1: is not valid YAML"},
		{"toml", "a = 1\n[t]\nb = 'x'\n[[l]]\nc = 2026-01-01\n", "a number 1 1|l list 4 |l[0].c " +
			"string 5 2026-01-01T00:00:00Z|t.b string 3 x"},
		{"toml", "a = 1\na = 2\n", "line 2: is not valid TOML"},
		{"xml", `<c><bean id="x" class="y"><v>1</v></bean><bean id="z"/></c>`,
			"c.bean[x]@id string 1 x|c.bean[x]@class string 1 y|c.bean[x].v number 1 " +
				"1|c.bean[z]@id string 1 z"},
		{"xml", `<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>`, "a string 1 &b;"},
		{"xml", "<a>\n</b>", "line 2: is not well-formed XML"},
		{"xml", "<?xml version='1.0' encoding='ISO-8859-15'?>\n<a b='\xa4'/>",
			"a@b string 2 \u00a4"},
		{"xml", "\ufeff<?xml version=\"1.0\" encoding=\"utf-8\"?><a>é</a>", "a string 1 é"},
		{"xml", "<?xml version='1.0' encoding = \"Windows-1252\" ?><a b='\x80 \x93x\x94'>1</a>",
			"a@b string 1 \u0080 \u0093x\u0094|a number 1 1"},
		{"xml", "<?xml version='1.0' encoding='GBK'?><a b='\xd6\x5d\xce\xc4'>\x81\x7c</a>",
			"a@b string 1 Ö]ÎÄ|a string 1 \u0081|"},
		{"xml", "<?xml version='1.0' encoding='iso-8859-2'?><a b='\xa4'>",
			"line 1: is not well-formed XML"},
		{"xml", "<?xml version='1.0' encoding='EBCDIC-CP-US'?><a b='\xa4'/>",
			`line 1: is in the encoding "EBCDIC-CP-US", which is not known here: UTF-8 and those that have ASCII in them are`},
		{"xml", "<?xml version='1.0' encoding='UTF-16'?><a b='x'/>",
			`line 1: is in the encoding "UTF-16", which is not known here: UTF-8 and those that have ASCII in them are`},
		{"xml", "<?xml version='1.0' encoding='utf-8'?><a b='\xa4'/>", "is not UTF-8"},
		{"", "anything", ""},
	} {
		settings, err := Parse(c.format, []byte(c.in))
		var parts []string
		for _, s := range settings {
			parts = append(parts, fmt.Sprintf("%s %s %d %s", s.Key, s.Kind, s.Line, s.value))
		}
		got := strings.Join(parts, "|")
		if err != nil {
			got = err.Error()
		}
		require.Equal(t, c.want, got, "%s %q", c.format, c.in)
	}
}

func TestAliasBombEnds(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := range 9 {
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i+1, i+1,
			strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i), 10), ","))
	}
	_, err := Parse("yaml", []byte(b.String()))
	require.ErrorContains(t, err, "aliases")
}

// All text that is written as properties, with every special character escaped, is read back.
func TestPropertiesRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.MapOfN(rapid.StringMatching(`[ -~\t\n]{1,8}`),
			rapid.StringMatching(`[ -~\t\n\\]{0,12}`), 0, 8).Draw(t, "settings")
		var b strings.Builder
		escape := func(s string) string {
			return strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\t", `\t`, " ", `\ `, "=", `\=`, ":",
				`\:`, "#", `\#`, "!", `\!`).Replace(s)
		}
		for key, value := range want {
			fmt.Fprintf(&b, "%s=%s\n", escape(key), escape(value))
		}
		settings, err := Parse("properties", []byte(b.String()))
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, s := range settings {
			got[s.Key] = s.value
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
	})
}

func fuzz(f *testing.F, format string, seeds ...string) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		settings, err := Parse(format, data)
		var syntax *SyntaxError
		if err != nil && !errors.As(err, &syntax) {
			t.Fatalf("an error of another kind: %v", err)
		}
		again, _ := Parse(format, data)
		if len(again) != len(settings) {
			t.Fatal("read twice, with two results")
		}
	})
}

func FuzzProperties(f *testing.F) {
	fuzz(f, "properties", "a=1\\\n b\nc:\\u00e9 d", "\\", "a\\")
}
func FuzzINI(f *testing.F)    { fuzz(f, "ini", "[s]\na=1\n;x\nb: 2", "[", "=") }
func FuzzDotenv(f *testing.F) { fuzz(f, "dotenv", "export A=1\nB=\"x\ny\\\"\"\nC='z' # c", "A=\"") }
func FuzzJSON(f *testing.F)   { fuzz(f, "json", `{"a":[1,{"b":null}]}`, "[[", `"`) }
func FuzzXML(f *testing.F) {
	fuzz(f, "xml", `<a b="c"><d>e</d><d/></a>`, "<", "<a>&#0;</a>", "<?xml version='1.0' "+
		"encoding='ISO-8859-15'?><a b='\xa4'/>")
}
func FuzzYAML(f *testing.F) {
	fuzz(f, "yaml", "a: &x [1, *x]\n<<: {b: c}\n---\n- d", "&a *a", "? []\n")
}
func FuzzTOML(f *testing.F) { fuzz(f, "toml", "a=1\n[b]\nc=[{d=1}]", "[[a]]\n[a.b]") }
func FuzzText(f *testing.F) {
	for _, s := range []string{"a { b = \"c\" }\n", "export A='b' # c\nmysql -pX \\\n -u y",
		"f(\"a\", 'b')\nx: string = `y`",
		"http://a:b@c;Password=d; --token e"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, format := range []string{"conf", "shell", "code"} {
			settings, problems, _ := read(format, data)
			for i := range settings {
				if settings[i].Line < 1 || settings[i].Line > 1+strings.Count(string(data), "\n")+
					strings.Count(string(data), "\r") {
					t.Fatalf("%s: line %d of %q", format, settings[i].Line, data)
				}
			}
			file := &File{Settings: settings, syntax: problems, format: format}
			file.judge()
			for i := range settings {
				isUnfilled(settings[i].value)
				namesItself(&settings[i])
				database(&settings[i])
				address(&settings[i])
			}
		}
		for _, found := range tokensIn(data) {
			if found.line > 1+strings.Count(string(data), "\n") {
				t.Fatalf("line %d of %q", found.line, data)
			}
		}
	})
}
func FuzzConfig(f *testing.F) {
	f.Add([]byte(
		`{"allow":[{"rule":"key","reason":"x","until":"2027-01-01"}],"keys":[{"path":"*","key":"a","pattern":"["}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := ParseConfig(data); err != nil && !errors.Is(err, ErrInvalid) {
			t.Fatal(err)
		}
	})
}
func Example() {
	image := fstest.MapFS{
		"envs/test/opt/app.properties": {Data: []byte(
			"db.url=jdbc:mysql://db.test.example.com/app\ndb.pool=5\n"), Mode: 0o644},
		"envs/production/opt/app.properties": {Data: []byte("db.url=jdbc:mysql://localhost/app\n"),
			Mode: 0o644},
	}
	manifest, err := envconfig.Scan(image)
	if err != nil {
		fmt.Println(err)
		return
	}
	report, err := Run(image, manifest, Config{}, time.Now())
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = report.WriteText(os.Stdout)
	// Output:
	// envs/production/opt/app.properties: key: production: db.pool: the key is missing; it is in test
	// envs/production/opt/app.properties:1: placeholder: production: db.url: the value names the container itself as the host
	// fix key: add the key to the environment, or accept the difference in envconfig-check.json with a reason
	// fix placeholder: write the value of this environment, or a reference such as ${NAME} with the action render
	// check: 2 environments, 2 files, 3 keys: 2 findings, 0 allowed
}

// BenchmarkCheck is 4 environments of 500 files with 50,000 keys in all.
func BenchmarkCheck(b *testing.B) {
	image := fstest.MapFS{}
	for _, env := range []string{"test", "sandbox", "production", "stable"} {
		for i := range 500 {
			var text strings.Builder
			for k := range 25 {
				fmt.Fprintf(&text, "service%d.key%d=value %d of %s\n", i, k, k, env)
			}
			image[fmt.Sprintf("envs/%s/opt/f%d.properties", env, i)] = &fstest.MapFile{Data: []byte(
				text.String()), Mode: 0o644}
		}
	}
	for b.Loop() {
		m, err := envconfig.Scan(image)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := Run(image, m, Config{}, time.Now()); err != nil {
			b.Fatal(err)
		}
	}
}
