package builder_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"pgregory.net/rapid"

	"github.com/sluice-deploy/sluice/builder"
)

var update = flag.Bool("update", false, "write the golden files")

func TestRenderedTemplates(t *testing.T) {
	t.Parallel()
	for _, tmpl := range builder.Default().Templates() {
		t.Run(tmpl.ID(), func(t *testing.T) {
			t.Parallel()
			got, err := tmpl.Render(tmpl.Examples())
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", "rendered", tmpl.ID()+".Dockerfile")
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("rendered differs from %s (-want +got):\n%s", golden, diff)
			}
		})
	}
}

func TestCatalogHasNoFindings(t *testing.T) {
	t.Parallel()
	for _, tmpl := range builder.Default().Templates() {
		rendered, err := tmpl.Render(tmpl.Examples())
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range builder.Lint(rendered) {
			t.Errorf("%s: %s", tmpl.ID(), f)
		}
		if !bytes.Contains(rendered, []byte(`ENTRYPOINT ["/sbin/envconfig", "--", `)) {
			t.Errorf("%s does not start through envconfig", tmpl.ID())
		}
		if want := bytes.Contains(tmpl.Source(), []byte("\nRUN ")); tmpl.NeedsRun() != want {
			t.Errorf("%s: NeedsRun is %v, want %v", tmpl.ID(), tmpl.NeedsRun(), want)
		}
	}
}

func TestRenderRefuses(t *testing.T) {
	t.Parallel()
	digest := "@sha256:" + strings.Repeat("a", 64)
	for _, c := range []struct {
		name, template, param, value string
		says                         string
	}{
		{"newline", "go-static", "CLUSTER_NAME", "a\nUSER root",
			"line 3: parameter CLUSTER_NAME: the value has a newline at byte 2"},
		{"carriage return", "go-static", "CLUSTER_NAME", "a\rb", "a newline"},
		{"double quote", "go-static", "BINARY", `a"`, `a quote " at byte 2`},
		{"single quote", "go-static", "BINARY", "a'", "a quote '"},
		{"backtick", "go-static", "BINARY", "`id`", "a quote `"},
		{"substitution", "tomcat", "PACKAGES", "rsync $(id)", "line 4: parameter PACKAGES: the " +
			"value has a command substitution $( at byte 7"},
		{"variable", "tomcat", "PACKAGES", "$HOME", "a variable sign $"},
		{"backslash", "tomcat", "HOME_DIR", `/a\`, "a backslash"},
		{"nul", "tomcat", "HOME_DIR", "/a\x00", "a control character"},
		{"unicode", "tomcat", "BUILD_IP", "häst", "outside ASCII"},
		{"empty", "tomcat", "BUILD_IP", "", "the value is empty"},
		{"operator", "tomcat", "PACKAGES", "rsync && id", "is not words"},
		{"option", "tomcat", "PACKAGES", "--installroot=/x", "is not words"},
		{"option in front", "tomcat", "PACKAGES", "-y", "is not words"},
		{"two spaces", "tomcat", "PACKAGES", "a  b", "is not words"},
		{"host with port", "tomcat", "BUILD_IP", "10.1.2.3:873", "is not an IPv4 address or a " +
			"DNS name"},
		{"host out of range", "tomcat", "BUILD_IP", "10.1.2.300", "is not an IPv4 address or a " +
			"DNS name"},
		{"host of six", "tomcat", "BUILD_IP", "::1", "is not an IPv4 address or a DNS name"},
		{"host as option", "tomcat", "BUILD_IP", "-e", "is not an IPv4 address or a DNS name"},
		{"port zero", "go-static", "PORT", "0", "is not a port from 1 to 65535"},
		{"port high", "go-static", "PORT", "65536", "is not a port"},
		{"port padded", "go-static", "PORT", "080", "is not a port"},
		{"port signed", "go-static", "PORT", "+80", "is not a port"},
		{"port word", "go-static", "PORT", "http", "is not a port"},
		{"root", "go-static", "UID", "0", "is not a numeric user id from 1"},
		{"relative path", "tomcat", "HOME_DIR", "home", "is not an absolute path"},
		{"root path", "tomcat", "HOME_DIR", "/", "is not an absolute path"},
		{"parent path", "tomcat", "HOME_DIR", "/a/../b", "is not an absolute path"},
		{"path with space", "tomcat", "HOME_DIR", "/a b", "is not an absolute path"},
		{"path with pattern", "tomcat", "HOME_DIR", "/a*", "is not an absolute path"},
		{"absolute file", "node", "MAIN", "/server.js", "is not a relative path"},
		{"file outside", "node", "MAIN", "../server.js", "is not a relative path"},
		{"file as option", "node", "APP_DIR", "--from", "is not a relative path"},
		{"image by tag", "go-static", "BASE_IMAGE", "alpine:3", "is not scratch or an image by " +
			"digest"},
		{"image with a stage", "go-static", "BASE_IMAGE", "alpine" + digest + " AS x",
			"is not scratch or an image by digest"},
		{"image upper case", "go-static", "BASE_IMAGE", "Alpine" + digest, "is not scratch or an " +
			"image by digest"},
		{"long", "go-static", "BINARY", strings.Repeat("a", 5000),
			"has 5000 bytes, more than 4096"},
		{"unused", "go-static", "COLOUR", "red", "parameter COLOUR: the template does not use " +
			"it, it has CLUSTER_NAME, BASE_IMAGE"},
		{"odd name", "go-static", "A\nB", "red", `parameter "A\nB": the template does not use it`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tmpl, err := builder.Default().Template(c.template)
			if err != nil {
				t.Fatal(err)
			}
			values := tmpl.Examples()
			values[c.param] = c.value
			got, err := tmpl.Render(values)
			if err == nil {
				t.Fatalf("accepted, rendered:\n%s", got)
			}
			var param *builder.ParamError
			if !errors.As(err, &param) || param.Template != tmpl.ID() ||
				!errors.Is(err, builder.ErrInvalid) {
				t.Errorf("error is %#v, want a ParamError of template %s", err,
					tmpl.ID())
			}
			if !strings.Contains(err.Error(), c.says) || !strings.HasPrefix(err.Error(),
				"template "+tmpl.ID()+": ") {
				t.Errorf("error is %q, want %q in it", err, c.says)
			}
			if strings.Count(err.Error(), "\n") > 0 {
				t.Errorf("error has several lines: %q", err)
			}
		})
	}
}

func TestRenderReportsEverything(t *testing.T) {
	t.Parallel()
	tmpl, err := builder.Default().Template("tomcat")
	if err != nil {
		t.Fatal(err)
	}
	_, err = tmpl.Render(map[string]string{"PORT": "x", "EXTRA": "y"})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		"line 3: parameter CLUSTER_NAME: no value", "line 2: parameter BASE_IMAGE: no value",
		"line 13: parameter BUILD_IP: no value",
		"line 7: parameter PORT: value \"x\"", "parameter EXTRA: ",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q lacks %q", err, want)
		}
	}
}

func TestTemplateNotFound(t *testing.T) {
	t.Parallel()
	_, err := builder.Default().Template("php")
	if !errors.Is(err, builder.ErrNotFound) || !strings.Contains(err.Error(),
		`template "php": have dotnet@1, go@1, go-static@1, java@1, nginx@1, node@1, `+
			"php-fpm@1, python@1, spa@1, spring-boot@1, static-site@1, tomcat@1, tomcat@2: not found") {
		t.Errorf("error is %v", err)
	}
}

// outline is an independent, rougher view of a Dockerfile than the package's own: the instructions,
// their flags, how many arguments they have, and for RUN which characters that a shell minds stand
// in it.
func outline(t interface{ Fatal(...any) }, dockerfile []byte) string {
	res, err := parser.Parse(bytes.NewReader(dockerfile))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, n := range res.AST.Children {
		out.WriteString(strings.ToUpper(n.Value))
		for _, f := range n.Flags {
			name, _, _ := strings.Cut(f, "=")
			out.WriteString(" " + name)
		}
		for a := n.Next; a != nil; a = a.Next {
			out.WriteString(" .")
		}
		if strings.EqualFold(n.Value, "run") {
			for _, r := range n.Original {
				if strings.ContainsRune("\n;&|<>()$`\\\"'*?[]{}#!~", r) {
					out.WriteRune(r)
				}
			}
		}
		out.WriteByte('\n')
	}
	return out.String()
}

// TestNoValueChangesTheSkeleton asks rapid for hostile values of every parameter of every template.
func TestNoValueChangesTheSkeleton(t *testing.T) {
	t.Parallel()
	hostile := rapid.OneOf(
		rapid.StringMatching(`[a-z0-9/._:@ -]{0,20}`),
		rapid.StringMatching("[ -~\n\t\r]{0,20}"),
		rapid.SampledFrom([]string{"a\nRUN id", "a \\", "a # b", "<<EOF", "--from=x", "a b c",
			"x AS y", "[\"a\"]", "scratch", "8080", "10.0.0.1"}),
	)
	for _, tmpl := range builder.Default().Templates() {
		t.Run(tmpl.Name, func(t *testing.T) {
			t.Parallel()
			neutral, err := tmpl.Render(tmpl.Examples())
			if err != nil {
				t.Fatal(err)
			}
			want := outline(t, neutral)
			rapid.Check(t, func(t *rapid.T) {
				values := tmpl.Examples()
				for _, p := range tmpl.Params {
					if rapid.Bool().Draw(t, "hostile "+p.Name) {
						values[p.Name] = hostile.Draw(t, p.Name)
					}
				}
				rendered, err := tmpl.Render(values)
				if err != nil {
					return
				}
				if got := outline(t, rendered); got != want {
					t.Fatalf("values %q give another skeleton:\n%s", values, rendered)
				}
			})
		})
	}
}

func FuzzRender(f *testing.F) {
	for _, seed := range []string{"a\nRUN id", "a \\", "$(id)", "<<EOF", "a b", "/a/b", "8080",
		"scratch", "10.0.0.1", "x@sha256:" + strings.Repeat("0", 64)} {
		f.Add(seed, uint8(0))
	}
	templates := builder.Default().Templates()
	f.Fuzz(func(t *testing.T, value string, which uint8) {
		tmpl := templates[int(which)%len(templates)]
		neutral, err := tmpl.Render(tmpl.Examples())
		if err != nil {
			t.Fatal(err)
		}
		want := outline(t, neutral)
		for _, p := range tmpl.Params {
			values := maps.Clone(tmpl.Examples())
			values[p.Name] = value
			rendered, err := tmpl.Render(values)
			if err != nil {
				continue
			}
			if got := outline(t, rendered); got != want {
				t.Errorf("%s: %s=%q gives another skeleton:\n%s", tmpl.Name, p.Name, value,
					rendered)
			}
		}
	})
}

// TestHostileValues gives every parameter of every template values that no type has. Each is
// refused in one line that names the template, the parameter, its first line in the Dockerfile, and
// no more of the value than a message can hold.
func TestHostileValues(t *testing.T) {
	t.Parallel()
	hostile := []string{"", " ", "a\nRUN id", "a\r\n", "\ufeffa", "a\u2028b", "ä", "\xff\xfe",
		"a\x00b", "a\tb", "${PATH}", "$PATH", "$(id)", "`id`", `a\`, `\`, `"`, "'", `","-x`, "a;id",
		"a&&id", "a|id", "<<EOF", ">x", "#a", "*", "?", "[a]", "{{PORT}}", "{a,b}", "~", "!", "-x", "--from=x",
		"../x", "/..", "a//b", "a/./b", "-1", "１", strings.Repeat("a", 4097), strings.Repeat("1", 5000),
		strings.Repeat("ä", 5000), "a" + strings.Repeat(" a", 3000)}
	for _, tmpl := range builder.Default().Templates() {
		for _, p := range tmpl.Params {
			line := 1 + strings.Count(string(tmpl.Source()[:bytes.Index(tmpl.Source(),
				[]byte("{{"+p.Name+"}}"))]), "\n")
			start := fmt.Sprintf("template %s: Dockerfile line %d: parameter %s: ", tmpl.ID(), line,
				p.Name)
			refused := hostile
			switch p.Type { // the others take these for words
			case builder.TypeInt, builder.TypeSize, builder.TypePort, builder.TypeUID,
				builder.TypeBool, builder.TypeImage:
				refused = append(slices.Clip(hostile), "TRUE", "+1", "1e3", "0x10", "1.5", "007",
					"99999999999999999999", "9007199254740993g")
			}
			for _, v := range refused {
				values := tmpl.Examples()
				values[p.Name] = v
				_, err := tmpl.Render(values)
				if err == nil {
					t.Errorf("%s: %s=%.80q was accepted", tmpl.ID(), p.Name, v)
					continue
				}
				message := err.Error()
				if !strings.HasPrefix(message, start) || len(message) > 600 ||
					strings.ContainsAny(message, "\n\r\x00") || !utf8.ValidString(message) {
					t.Errorf("%s=%.80q: error of %d bytes %.700q, want one that begins with %q",
						p.Name, v, len(message), message, start)
				}
			}
		}
	}
}
