package transform

import (
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

// redirects keeps the default effect of proxy_redirect, for an upstream that answers with the
// address of production. As in Nginx, the default of a location that passes to a literal target
// holds for the blocks in it as well, for any target of theirs.
func (t *transform) redirects(p *pass) {
	if p.Name() != "proxy_pass" || !hasRedirect(p.Arg(0)) {
		return
	}
	set, block := t.effective(p.Node, "proxy_redirect")
	byDefault := slices.ContainsFunc(set, func(c conf.Node) bool {
		return c.Arg(0) == "default" && block == p.Parent()
	})
	if len(set) > 0 && !byDefault {
		return
	}
	around := len(p.Parents) - 2
	for ; around > 0 && !byDefault; around-- {
		outer := conf.Node{Directive: p.Parents[around], Parents: p.Parents[:around]}
		for c := range outer.Children() {
			if c.Name() == "proxy_pass" && hasRedirect(c.Arg(0)) {
				return
			}
		}
	}
	if name := p.Parent().Name(); name == "if" || name == "limit_except" {
		t.redirectsOfBlocks(p)
		return
	}
	from, to := p.argument(), "/"
	if p.rest == "" {
		from += "/"
	} else {
		to = p.Parent().Arg(p.Parent().NumArgs() - 1)
	}
	t.edit.InsertAfter(p.Directive, "proxy_redirect "+conf.Quote(from)+" "+conf.Quote(to)+";")
}

// hasRedirect reports whether Nginx has a default proxy_redirect for the argument of a proxy_pass.
func hasRedirect(argument string) bool { return !strings.Contains(argument, "$") }

// redirectsOfBlocks states in a location the default redirects of all the blocks in it that pass
// requests on, since proxy_redirect may not stand in if and limit_except.
func (t *transform) redirectsOfBlocks(p *pass) {
	at := len(p.Parents) - 2
	location := conf.Node{Directive: p.Parents[at], Parents: p.Parents[:at]}
	if location.Name() != "location" || t.redirected[location.Directive] {
		return
	}
	if t.redirected == nil {
		t.redirected = map[*conf.Directive]bool{}
	}
	t.redirected[location.Directive] = true
	var lines []string
	for block := range location.Children() {
		if block.Name() != "if" && block.Name() != "limit_except" {
			continue
		}
		for c := range block.Children() {
			if c.Name() == "proxy_pass" && hasRedirect(c.Arg(0)) {
				scheme, target, _ := splitTarget(c.Arg(0))
				line := "proxy_redirect " + conf.Quote(scheme+target+"/") + " /;"
				if !slices.Contains(lines, line) {
					lines = append(lines, line)
				}
			}
		}
	}
	t.edit.Append(location.Directive, strings.Join(lines, "\n"))
}
