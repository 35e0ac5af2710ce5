package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync/route"
)

func explain(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("nginxsync explain", flag.ContinueOnError)
	flags.SetOutput(stderr)
	dir := flags.String("conf", "", "`directory` of the tree, or its main file")
	where := rootFlags(flags)
	header := http.Header{}
	var headers []string
	flags.Func("H", "request `header` \"Name: value\"; may be repeated", func(s string) error {
		name, value, ok := strings.Cut(s, ":")
		if !ok {
			return fmt.Errorf("want Name: value")
		}
		header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
		headers = append(headers, s)
		return nil
	})
	method := flags.String("X", http.MethodGet, "request `method`")
	to := flags.String("to", "", "`address` that the request comes to, for trees whose servers "+
		"listen on several")
	from := flags.String("from", "", "`address` of the client, for trees that look at $remote_addr")
	disk := flags.String("disk", "", "`directory` that is the machine's file system from its "+
		"root: decides try_files, index, error pages of files")
	vip := flags.String("vip", "", "`address` of the VIP: ask the agent of this host, in place of "+
		"reading a tree")
	at := agentFlag(flags)
	nginx := flags.String("nginx", "", "`name` of the Nginx, where the agent has several")
	list := flags.String("files", "", "`file` with a line for each file of the machine, in place "+
		"of -disk: \"find /srv/www\" writes one")
	if err := parse(flags, args); err != nil {
		return err
	}
	if *disk != "" && *list != "" {
		fmt.Fprintln(stderr, "nginxsync explain: want -disk or -files, not both")
		return errUsage
	}
	if *vip != "" {
		if *dir != "" || *disk != "" || *list != "" || flags.NArg() != 1 {
			fmt.Fprintln(stderr, "nginxsync explain: -vip takes one URL and no tree")
			return errUsage
		}
		addr, err := netip.ParseAddr(*vip)
		if err != nil {
			return fmt.Errorf("-vip: %w", err)
		}
		return explainVIP(ctx, *at, addr, flags.Arg(0), *method, headers, *nginx, stdout)
	}
	if *dir == "" || flags.NArg() != 1 {
		fmt.Fprintln(stderr, "nginxsync explain: -conf and one URL are required")
		return errUsage
	}
	req := route.Request{URL: flags.Arg(0), Method: *method, Header: header}
	for _, a := range []struct {
		text string
		addr *netip.Addr
	}{{*to, &req.Addr}, {*from, &req.Client}} {
		if a.text == "" {
			continue
		}
		addr, err := netip.ParseAddr(a.text)
		if err != nil {
			return err
		}
		*a.addr = addr
	}
	switch {
	case *disk != "":
		root, err := os.OpenRoot(*disk)
		if err != nil {
			return err
		}
		defer root.Close()
		req.Disk = root.FS()
	case *list != "":
		text, err := os.ReadFile(*list)
		if err != nil {
			return err
		}
		req.Disk = listed(string(text))
	}
	main := "nginx.conf"
	if info, err := os.Stat(*dir); err == nil && info.Mode().IsRegular() {
		*dir, main = filepath.Split(*dir)
	}
	tree, err := where.parse(*dir, main)
	if err != nil {
		return err
	}
	answer, err := route.Explain(tree, req)
	for _, step := range answer.Steps {
		fmt.Fprintln(stdout, step)
	}
	for _, step := range answer.Unless {
		fmt.Fprintf(stdout, "%s: unless %s\n", step.At, step.Text)
	}
	for _, step := range answer.Beside {
		fmt.Fprintf(stdout, "%s: beside it, %s\n", step.At, step.Text)
	}
	return err
}

// listFS is a file system of names without contents.
type listFS map[string]bool // true for a directory

// listed makes a file system of a list of absolute paths. A name that others are below, or that
// ends in a slash, is a directory.
func listed(text string) listFS {
	l := listFS{".": true}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		name := strings.TrimPrefix(path.Clean(line), "/")
		if line == "" || name == "" {
			continue
		}
		l[name] = l[name] || strings.HasSuffix(line, "/")
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			l[dir] = true
		}
	}
	return l
}

// Open implements fs.FS.
func (l listFS) Open(name string) (fs.File, error) {
	if _, ok := l[name]; !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: errors.ErrUnsupported}
}

// Stat implements fs.StatFS.
func (l listFS) Stat(name string) (fs.FileInfo, error) {
	dir, ok := l[name]
	if !ok {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
	}
	return listInfo{name: path.Base(name), dir: dir}, nil
}

type listInfo struct {
	name string
	dir  bool
}

func (i listInfo) Name() string       { return i.name }
func (i listInfo) Size() int64        { return 0 }
func (i listInfo) ModTime() time.Time { return time.Time{} }
func (i listInfo) IsDir() bool        { return i.dir }
func (i listInfo) Sys() any           { return nil }

func (i listInfo) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o755
	}
	return 0o644
}
