package main

import (
	"cmp"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/bundle"
	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

// places are the directories that a tree is read from.
type places struct {
	root  string
	roots conf.Roots
	extra map[string]string // by the directory of the tree
}

// rootFlags declares the flags that say where absolute paths are taken from.
func rootFlags(flags *flag.FlagSet) *places {
	p := &places{roots: conf.Roots{}, extra: map[string]string{}}
	flags.StringVar(&p.root, "root", conf.DefaultRoot,
		"absolute `path` that the directory stands for: what absolute includes and links begin with")
	flags.Func("also", "`PATH=DIR`: absolute includes and links below PATH are taken from DIR, "+
		"such as /usr/share/nginx=copy/usr/share/nginx; may be repeated", func(s string) error {
		abs, dir, ok := strings.Cut(s, "=")
		if !ok || !path.IsAbs(abs) || path.Clean(abs) != abs || abs == "/" || dir == "" {
			return fmt.Errorf("want PATH=DIR with an absolute path")
		}
		at := ".also" + abs // hidden: no pattern of the tree itself matches it
		p.roots[abs], p.extra[at] = at, dir
		return nil
	})
	return p
}

// parse reads the tree, with the targets of its links.
func (p *places) parse(dir, main string) (*conf.Tree, error) {
	p.roots[p.root] = "."
	if err := p.roots.Validate(); err != nil {
		return nil, fmt.Errorf("-root, -also: %w", err)
	}
	r := bundle.Reader{Roots: p.roots, Extra: map[string]fs.FS{}}
	root, err := os.OpenRoot(cmp.Or(dir, "."))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	for at, dir := range p.extra {
		extra, err := os.OpenRoot(dir)
		if err != nil {
			return nil, err
		}
		defer extra.Close()
		r.Extra[at] = extra.FS()
	}
	b, err := r.Read(root.FS())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return conf.Parser{Roots: p.roots}.Parse(b.FS(), main)
}
