package builder

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/sluice-deploy/sluice/internal/strictjson"
)

// ErrNotFound is returned by [Catalog.Template] for a name that the catalogue does not hold.
var ErrNotFound = errors.New("not found")

//go:embed catalog
var embedded embed.FS

// Catalog is a checked set of templates. It never changes and is safe for concurrent use.
type Catalog struct {
	templates []*Template
}

// Template is one Dockerfile with declared parameters. It never changes and is safe for concurrent
// use; callers must not write to its slices.
type Template struct {
	Name string `json:"name"`
	// Version counts the template's versions from 1. It is in the directory's name: tomcat, or
	// tomcat@1, is version 1 and tomcat@2 is version 2.
	Version     int    `json:"version"`
	Description string `json:"description"`
	// Deprecated says why new images should not be built from this version, and from which one they
	// should be. The default is that the version is not deprecated.
	Deprecated string `json:"deprecated,omitempty"`
	// Params stand in the order in which the template declares them.
	Params []Param `json:"params"`
	// Context lists the files that the build context must hold.
	Context []ContextFile `json:"context"`

	source []byte
	uses   []placeholder
	digest string
	run    bool
}

// ContextFile is one file or directory that a template copies from the build context.
type ContextFile struct {
	// Path is relative to the context and may hold placeholders of the template.
	Path        string `json:"path"`
	Description string `json:"description"`
}

// Default returns the catalogue that comes with the package: dotnet, go, go-static, java, nginx,
// node, php-fpm, python, spa, spring-boot, static-site and tomcat.
func Default() *Catalog { return defaultCatalog() }

var defaultCatalog = sync.OnceValue(func() *Catalog {
	sub, err := fs.Sub(embedded, "catalog")
	if err != nil {
		panic(err)
	}
	c, err := Load(sub)
	if err != nil {
		panic(err)
	}
	return c
})

// Load reads a catalogue: every directory of fsys is a template of that name, or with name@version
// a version of it, with a Dockerfile and a template.json. It checks each of them (declarations,
// placeholders, a skeleton that no value can change, the rules of [Lint] that are errors) and
// returns every problem at once, joined. A problem of a template is [ErrInvalid]; a file that
// cannot be read is the error of fsys.
func Load(fsys fs.FS) (*Catalog, error) {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, fmt.Errorf("load catalogue: %w", err)
	}
	c := &Catalog{}
	var problems []error
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		t, err := loadTemplate(fsys, e.Name())
		var unread *fs.PathError
		if err != nil && (!errors.As(err, &unread) || errors.Is(err, fs.ErrNotExist)) {
			err = fmt.Errorf("%w: %w", err, ErrInvalid)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("load template %q: %w", e.Name(), err))
			continue
		}
		c.templates = append(c.templates, t)
	}
	slices.SortFunc(c.templates, func(a, b *Template) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version))
	})
	for i, t := range c.templates[min(1, len(c.templates)):] {
		if before := c.templates[i]; before.ID() == t.ID() {
			problems = append(problems, fmt.Errorf("load template %q: the directories %s and %s "+
				"both hold it: %w", t.ID(), t.Name, t.ID(), ErrInvalid))
		}
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return c, nil
}

// Templates returns all versions of all templates, by name and version.
func (c *Catalog) Templates() []*Template { return slices.Clone(c.templates) }

// Newest returns of each template the version that its name alone stands for, by name.
func (c *Catalog) Newest() []*Template {
	var list []*Template
	for _, t := range c.templates {
		newest, err := c.Template(t.Name)
		if err == nil && t == newest {
			list = append(list, t)
		}
	}
	return list
}

// Template returns a template by its name or its ID. A name alone stands for the newest version
// that is not deprecated, and for the newest version where all of them are. The error is
// [ErrNotFound] and lists the templates there are.
func (c *Catalog) Template(name string) (*Template, error) {
	var found *Template
	have := make([]string, len(c.templates))
	for i, t := range c.templates { // the newest last
		if t.ID() == name {
			return t, nil
		}
		if t.Name == name && (found == nil || t.Deprecated == "" || found.Deprecated != "") {
			found = t
		}
		have[i] = t.ID()
	}
	if found != nil {
		return found, nil
	}
	return nil, fmt.Errorf("template %s: have %s: %w", quote(name), strings.Join(have, ", "),
		ErrNotFound)
}

// ID names this version of the template: "tomcat@2".
func (t *Template) ID() string { return t.Name + "@" + strconv.Itoa(t.Version) }

// Source returns a copy of the Dockerfile as the template has it, with its placeholders.
func (t *Template) Source() []byte { return bytes.Clone(t.source) }

// Digest is "sha256:…" over the template's two files: it names this state of the template in
// records and labels.
func (t *Template) Digest() string { return t.digest }

// Keys of the labels that [Template.Labels] gives.
const (
	LabelTemplate       = "io.github.sluice-deploy.template"
	LabelTemplateDigest = "io.github.sluice-deploy.template.digest"
)

// Labels are for [Request.Labels]: they name the template by its ID, and its state, that an image
// was built from.
func (t *Template) Labels() map[string]string {
	return map[string]string{LabelTemplate: t.ID(), LabelTemplateDigest: t.digest}
}

// NeedsRun reports whether the template runs commands, so that only an engine with a sandbox can
// build it.
func (t *Template) NeedsRun() bool { return t.run }

var templateDir = regexp.MustCompile(
	`^([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)(?:@([1-9][0-9]{0,8}))?$`)

func loadTemplate(fsys fs.FS, dir string) (*Template, error) {
	parts := templateDir.FindStringSubmatch(dir)
	if parts == nil {
		return nil, errors.New("the directory's name must be lower-case letters, digits and -, " +
			"then nothing or @ and a version from 1")
	}
	name, version := parts[1], 1
	if parts[2] != "" {
		version, _ = strconv.Atoi(parts[2]) // nine digits
	}
	source, err := fs.ReadFile(fsys, dir+"/Dockerfile")
	if err != nil {
		return nil, err
	}
	declaration, err := fs.ReadFile(fsys, dir+"/template.json")
	if err != nil {
		return nil, err
	}
	t := &Template{}
	if err := strictjson.Decode(declaration, t); err != nil {
		return nil, fmt.Errorf("template.json: %w", err)
	}
	if t.Version != 0 && t.Version != version {
		return nil,
			fmt.Errorf("template.json: version %d differs from the directory's name: leave "+
				"it out", t.Version)
	}
	if t.Name != "" && t.Name != name {
		return nil,
			fmt.Errorf("template.json: name %q differs from the directory's name: leave it out",
				t.Name)
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%d\n%s%s", len(source), source, declaration)
	t.Name, t.Version, t.source = name, version, source
	t.digest = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	if err := t.check(); err != nil {
		return nil, err
	}
	return t, nil
}

// check finds everything that is wrong with the template by itself, before any value is known.
func (t *Template) check() error {
	var problems []error
	if t.Description == "" {
		problems = append(problems, errors.New("template.json: no description"))
	}
	declared := map[string]bool{}
	for _, p := range t.Params {
		if declared[p.Name] {
			problems = append(problems, fmt.Errorf("template.json: parameter %s is declared twice",
				p.Name))
		}
		declared[p.Name] = true
		if err := p.declared(); err != nil {
			problems = append(problems, fmt.Errorf("template.json: %w", err))
		}
	}
	uses, err := placeholders(t.source)
	problems = append(problems, err)
	used := map[string]bool{}
	for _, u := range uses {
		used[u.name] = true
		if !declared[u.name] {
			problems = append(problems, at(u.line,
				"placeholder {{%s}} is not declared in template.json", u.name))
		}
	}
	for _, p := range t.Params {
		if !used[p.Name] {
			problems = append(problems,
				fmt.Errorf("template.json: parameter %s is declared, but the Dockerfile does not "+
					"use it", p.Name))
		}
	}
	for _, f := range t.Context {
		in, err := placeholders([]byte(f.Path))
		problems = append(problems, err)
		for _, u := range in {
			if !declared[u.name] {
				problems = append(problems,
					fmt.Errorf("template.json: context path %s: placeholder {{%s}} is not declared",
						f.Path, u.name))
			}
		}
	}
	if err := errors.Join(problems...); err != nil {
		return err
	}
	t.uses = uses
	return t.checkSkeleton()
}
