package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/route"
)

func explain(_ context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("nginxsync explain", flag.ContinueOnError)
	flags.SetOutput(stderr)
	dir := flags.String("conf", "", "`folder` of the tree, or its main file")
	where := rootFlags(flags)
	header := http.Header{}
	flags.Func("H", "request `header` \"Name: value\"; may be repeated", func(s string) error {
		name, value, ok := strings.Cut(s, ":")
		if !ok {
			return fmt.Errorf("want Name: value")
		}
		header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
		return nil
	})
	method := flags.String("X", http.MethodGet, "request `method`")
	to := flags.String("to", "", "`address` that the request comes to, for trees whose servers listen on several")
	from := flags.String("from", "", "`address` of the client, for trees that look at $remote_addr")
	if err := parse(flags, args); err != nil {
		return err
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
	return err
}
