package builder_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/sluice-deploy/sluice/builder"
)

const aParam = `{"name": "A", "type": "word", "default": "x", "description": "a"}`

func catalogue(dockerfile, declaration string) fstest.MapFS {
	return fstest.MapFS{"t/Dockerfile": {Data: []byte(dockerfile)},
		"t/template.json": {Data: []byte(declaration)}}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	fsys := catalogue("FROM scratch\nCOPY {{A}} /{{A}}\n", `{"description": "d", "params": [`+
		aParam+`]}`)
	fsys[".git/config"] = &fstest.MapFile{}
	fsys["README"] = &fstest.MapFile{}
	c, err := builder.Load(fsys)
	if err != nil {
		t.Fatal(err)
	}
	tmpl, err := c.Template("t")
	if err != nil || len(c.Templates()) != 1 {
		t.Fatalf("templates %v, %v", c.Templates(), err)
	}
	got, err := tmpl.Render(nil)
	if err != nil || string(got) != "FROM scratch\nCOPY x /x\n" {
		t.Errorf("rendered %q, %v", got, err)
	}
	before := tmpl.Digest()
	fsys["t/template.json"].Data = append(fsys["t/template.json"].Data, '\n')
	if c, err = builder.Load(fsys); err != nil {
		t.Fatal(err)
	}
	if tmpl, _ = c.Template("t"); tmpl.Digest() == before {
		t.Error("another declaration has the same digest")
	}
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	const plain = "FROM scratch\nCOPY {{A}} /\n"
	declare := func(params ...string) string {
		return `{"description": "d", "params": [` + strings.Join(params, ",") + `]}`
	}
	for _, c := range []struct {
		name, dockerfile, declaration, says string
	}{
		{"not declared", "FROM scratch\nCOPY {{A}} {{B}}\n", declare(aParam),
			"Dockerfile line 2: placeholder {{B}} is not declared"},
		{"not used", "FROM scratch\n", declare(aParam), "parameter A is declared, but the " +
			"Dockerfile does not use it"},
		{"twice", plain, declare(aParam, aParam), "parameter A is declared twice"},
		{"spaces", "FROM scratch\nCOPY {{ A }} /\n", declare(aParam),
			"Dockerfile line 2: placeholder {{ A }}: the name must be"},
		{"open braces", "FROM scratch\nCOPY {{A}} /{{\n", declare(aParam),
			"line 2: {{ that belongs to no placeholder"},
		{"closed braces", "FROM scratch\nCOPY {{A}} /}}\n", declare(aParam),
			"line 2: }} that belongs to no placeholder"},
		{"bad json", plain, `{`, "template.json: unexpected EOF"},
		{"unknown field", plain, `{"desc": "d"}`, `template.json: json: unknown field "desc"`},
		{"field twice", plain, `{"description": "d", "description": "e"}`,
			`template.json: field "description" comes twice`},
		{"other name", plain, `{"name": "u"}`, `name "u" differs from the directory's name`},
		{"other version", plain, `{"version": 2}`, `version 2 differs from the directory's name`},
		{"no description", "FROM scratch\n", `{}`, "template.json: no description"},
		{"bad name", plain,
			declare(`{"name": "a", "type": "word", "default": "x", "description": "a"}`),
			`parameter "a": the name must be`},
		{"no type", plain, declare(`{"name": "A", "default": "x", "description": "a"}`),
			`type "" does not exist`},
		{"bad default", plain,
			declare(`{"name": "A", "type": "port", "default": "x", "description": "a"}`),
			`value "x" is not a port`},
		{"no default", plain, declare(`{"name": "A", "type": "port", "description": "a"}`),
			"parameter A needs a default, or required: true"},
		{"useless default", plain,
			declare(`{"name": "A", "type": "port", "default": "1", "required": true, "description": "a"}`), "so its default \"1\" is never used"},
		{"no example", plain,
			declare(`{"name": "A", "type": "port", "required": true, "description": "a"}`),
			"needs an example"},
		{"no help", plain, declare(`{"name": "A", "type": "port", "default": "1"}`),
			"parameter A has no description"},
		{"no choices", plain,
			declare(`{"name": "A", "type": "enum", "required": true, "description": "a"}`),
			"type enum needs values"},
		{"odd choice", plain,
			declare(`{"name": "A", "type": "enum", "required": true, "values": ["a b"], "description": "a"}`), `choice "a b" is not a word`},
		{"choices of a word", plain, declare(
			`{"name": "A", "type": "word", "default": "a", "values": ["a"], "description": "a"}`),
			"only type enum has values"},
		{"context", plain, `{"description": "d", "params": [` +
			aParam + `], "context": [{"path": "{{B}}"}]}`, "context path {{B}}: placeholder " +
			"{{B}} is not declared"},
		{"words in copy", plain,
			declare(`{"name": "A", "type": "words", "default": "x", "description": "a"}`),
			"line 2: a parameter of type words adds arguments"},
		{"syntax", "#syntax=x/{{A}}\nFROM scratch\n", declare(aParam), "line 1: parser directive " +
			"syntax is refused"},
		{"cache", "FROM scratch\nARG CACHE={{A}}\nCOPY a /\n", declare(aParam),
			"Dockerfile line 2: ARG CACHE rebuilds nothing"},
		{"instruction", "FROM {{A}}\nCOPY <<EOF /a\n", declare(aParam), "parse"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := builder.Load(catalogue(c.dockerfile, c.declaration))
			if !errors.Is(err, builder.ErrInvalid) {
				t.Fatalf("got %v, want ErrInvalid", err)
			}
			if !strings.Contains(err.Error(), c.says) || !strings.HasPrefix(err.Error(),
				`load template "t": `) {
				t.Errorf("error is %q, want %q in it", err, c.says)
			}
		})
	}
	if _, err := builder.Load(fstest.MapFS{"Bad Name/Dockerfile": {}}); !errors.Is(err,
		builder.ErrInvalid) {
		t.Errorf("a directory's name with spaces: got %v, want ErrInvalid", err)
	}
	_, err := builder.Load(fstest.MapFS{"t/template.json": {}})
	if !errors.Is(err, builder.ErrInvalid) || !strings.Contains(err.Error(), "t/Dockerfile") {
		t.Errorf("without a Dockerfile: got %v, want ErrInvalid", err)
	}
	if _, err := builder.Load(unreadable{catalogue(plain, declare(aParam))}); !errors.Is(err,
		fs.ErrPermission) ||
		errors.Is(err, builder.ErrInvalid) {
		t.Errorf("a Dockerfile that cannot be read: got %v, want the error of the file system alone", err)
	}
}

// A problem is reported once, without the problems that follow from it.
func TestLoadAfterBadPlaceholder(t *testing.T) {
	t.Parallel()
	declared := `{"description": "d", "params": [` + aParam + `]}`
	_, err := builder.Load(catalogue("FROM scratch\nCOPY {{A}} /{{\n", declared))
	if err == nil || strings.Contains(err.Error(), "does not use it") {
		t.Errorf("got %v, want no problem but the braces", err)
	}
}

// unreadable refuses to open files.
type unreadable struct{ fstest.MapFS }

func (u unreadable) ReadFile(name string) ([]byte, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
}

func TestEnumAndIP(t *testing.T) {
	t.Parallel()
	c, err := builder.Load(catalogue("FROM scratch\nLABEL a={{A}} b={{B}}\n", `{"description": "d", "params": [
		{"name": "A", "type": "enum", "required": true, "values": ["blue", "green"], "description": "a"},
		{"name": "B", "type": "ip", "default": "::1", "description": "b"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	tmpl, _ := c.Template("t")
	if got, err := tmpl.Render(map[string]string{"A": "green"}); err != nil ||
		string(got) != "FROM scratch\nLABEL a=green b=::1\n" {
		t.Errorf("rendered %q, %v", got, err)
	}
	for param, value := range map[string]string{"A": "red", "B": "fe80::1%eth0"} {
		values := tmpl.Examples()
		values[param] = value
		if got, err := tmpl.Render(values); err == nil {
			t.Errorf("%s=%s was accepted: %s", param, value, got)
		}
	}
}
