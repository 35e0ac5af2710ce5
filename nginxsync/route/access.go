package route

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

// access decides allow, deny, auth_basic and satisfy. The answer of a password file or of a
// subrequest of auth_request is among Answer.Unless.
func (w *walk) access() error {
	rule, denied, err := w.clientRule()
	if err != nil {
		return err
	}
	basic, err := w.password()
	if err != nil {
		return err
	}
	noPassword := basic.Directive != nil && w.req.Header.Get("Authorization") == ""
	subrequest := conf.Node{}
	for n := range w.inherited(w.at, "auth_request") {
		if n.Arg(0) != "off" {
			subrequest = n
		}
	}
	if w.satisfyAny() {
		switch {
		case rule.Directive != nil && !denied:
			return nil // the others are not asked
		case subrequest.Directive != nil && (denied || noPassword):
			return undecided(subrequest.Directive, "satisfy any: auth_request")
		case basic.Directive != nil && !noPassword && denied:
			return undecided(basic.Directive, "satisfy any: auth_basic of the password")
		case noPassword:
			w.step(basic.Directive, "auth_basic, and the request has no password: 401")
			return w.special(http.StatusUnauthorized, w.at)
		}
	}
	switch {
	case denied:
		w.step(rule.Directive, "deny %s", rule.Arg(0))
		return w.special(http.StatusForbidden, w.at)
	case noPassword:
		w.step(basic.Directive, "auth_basic, and the request has no password: 401")
		return w.special(http.StatusUnauthorized, w.at)
	}
	if basic.Directive != nil {
		w.unless(basic.Directive, "auth_basic does not know the password: 401")
	}
	if subrequest.Directive != nil {
		w.unless(subrequest.Directive, "auth_request %s answers 401 or 403", subrequest.Arg(0))
	}
	return nil
}

// clientRule is the first allow or deny that has the client's address; the zero Node for none.
func (w *walk) clientRule() (rule conf.Node, denied bool, err error) {
	client, err := w.client()
	if err != nil {
		return conf.Node{}, false, err
	}
	client = client.Unmap()
	for n := range w.inherited(w.at, "allow", "deny") {
		text := n.Arg(0)
		has := text == "all"
		switch {
		case has || text == "unix:":
		case !client.IsValid():
			return conf.Node{}, false, undecided(n.Directive, "%s %s without the client's address",
				n.Name(), text)
		default:
			network, err := network(text)
			if err != nil {
				return conf.Node{}, false, undecided(n.Directive, "%s %s", n.Name(), text)
			}
			has = network.Contains(client)
		}
		if has {
			return n, n.Name() == "deny", nil
		}
	}
	return conf.Node{}, false, nil
}

// network reads an address, or one with the length of its prefix.
func network(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	return p.Masked(), err
}

// password is the auth_basic that counts; the zero Node for none. Nginx does not ask for a password
// where auth_basic_user_file is missing.
func (w *walk) password() (conf.Node, error) {
	file := false
	for range w.inherited(w.at, "auth_basic_user_file") {
		file = true
	}
	if !file {
		return conf.Node{}, nil
	}
	for n := range w.inherited(w.at, "auth_basic") {
		realm, err := w.expand(n.Directive, n.Arg(0))
		if err != nil || realm == "off" {
			return conf.Node{}, err
		}
		return n, nil
	}
	return conf.Node{}, nil
}

func (w *walk) satisfyAny() bool {
	for n := range w.inherited(w.at, "satisfy") {
		return n.Arg(0) == "any"
	}
	return false
}

// unless adds a condition that is not in the configuration.
func (w *walk) unless(d *conf.Directive, format string, args ...any) {
	before := len(w.answer.Steps)
	w.step(d, format, args...)
	w.answer.Unless = append(w.answer.Unless, w.answer.Steps[before])
	w.answer.Steps = w.answer.Steps[:before]
}

// upstreamSays adds the answers of an upstream that Nginx itself acts on: the codes of
// error_page, and X-Accel-Redirect.
func (w *walk) upstreamSays(pass conf.Node) {
	module := strings.TrimSuffix(pass.Name(), "_pass")
	if module == "memcached" {
		return
	}
	if !w.errorPage {
		intercepts := w.on(w.at, module+"_intercept_errors")
		for page := range w.inherited(w.at, "error_page") {
			codes := page.Args()
			own := slices.ContainsFunc(codes, func(code string) bool {
				return code == "502" || code == "504"
			})
			switch {
			case intercepts:
				w.unless(page.Directive, "the upstream answers %s: error_page",
					strings.Join(codes, " "))
			case own:
				w.unless(page.Directive, "the upstream does not answer: error_page %s",
					strings.Join(codes, " "))
			}
		}
	}
	for n := range w.inherited(w.at, module+"_ignore_headers") {
		if slices.ContainsFunc(n.Args(), func(name string) bool {
			return strings.EqualFold(name, "X-Accel-Redirect")
		}) {
			return
		}
	}
	for location := range w.server.Find("location") {
		for n := range location.Find("internal") {
			w.unless(n.Directive, "the upstream sends X-Accel-Redirect")
			return
		}
	}
}
