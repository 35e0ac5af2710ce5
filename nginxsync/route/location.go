package route

import (
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

const (
	kindExact    = "exactly the path"
	kindPrefix   = "the longest prefix of the path"
	kindFinal    = "the longest prefix of the path, which regular expressions do not override"
	kindRegex    = "the first regular expression that matches the path"
	kindRedirect = "the path without its last slash: redirected to the directory"
)

// pattern is the modifier and the path or expression of a location.
func pattern(n conf.Node) (modifier, text string) {
	if n.NumArgs() >= 2 {
		return n.Arg(0), n.Arg(1)
	}
	text = n.Arg(0)
	for _, m := range []string{"=", "^~", "~*", "~"} {
		if rest, ok := strings.CutPrefix(text, m); ok {
			return m, rest
		}
	}
	return "", text
}

// location finds the location of the current path: the exact one, else the longest prefix and the
// locations inside it, else, unless the prefix forbids it, the first regular expression. The zero
// Node means that the block itself answers.
func (w *walk) location(in conf.Node) (conf.Node, string) {
	var best, redirect conf.Node
	bestText, bestKind := "", ""
	var exprs []conf.Node
	for n := range in.Find("location") {
		modifier, text := pattern(n)
		switch {
		case strings.HasPrefix(text, "@") && modifier == "":
		case modifier == "~" || modifier == "~*":
			exprs = append(exprs, n)
		case modifier == "=":
			if text == w.uri {
				return n, kindExact
			}
			if passes(n) && text == w.uri+"/" {
				redirect = n
			}
		case strings.HasPrefix(w.uri, text):
			if best.Directive == nil || len(text) > len(bestText) {
				best, bestText, bestKind = n, text, kindPrefix
				if modifier == "^~" {
					bestKind = kindFinal
				}
			}
		case passes(n) && text == w.uri+"/":
			redirect = n
		}
	}
	if redirect.Directive != nil && bestText != w.uri {
		return redirect, kindRedirect
	}
	var inner conf.Node
	var innerKind string
	if best.Directive != nil {
		inner, innerKind = w.location(best)
		if innerKind == kindExact || innerKind == kindRedirect || innerKind == kindRegex {
			return inner, innerKind
		}
		if w.bad != nil {
			return conf.Node{}, ""
		}
	}
	if bestKind != kindFinal {
		for _, n := range exprs {
			modifier, text := pattern(n)
			yes, err := w.match(n.Directive, text, modifier == "~*", w.uri)
			if err != nil {
				w.bad = err
				return conf.Node{}, ""
			}
			if yes {
				if inner, kind := w.location(n); inner.Directive != nil {
					return inner, kind
				}
				return n, kindRegex
			}
		}
	}
	if inner.Directive != nil {
		return inner, innerKind
	}
	return best, bestKind
}

// passes reports whether the location passes requests on, and so redirects its own path without the
// last slash.
func passes(n conf.Node) bool {
	for c := range n.Children() {
		switch c.Name() {
		case "proxy_pass", "fastcgi_pass", "uwsgi_pass", "scgi_pass", "grpc_pass", "memcached_pass":
			return true
		}
	}
	return false
}
