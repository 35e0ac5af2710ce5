package route

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

// hostFault says why Nginx refuses a Host header (ngx_http_validate_host), and is empty for a good
// one.
func hostFault(host string) string {
	switch {
	case strings.Contains(host, ".."):
		return "has two dots in a row"
	case strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r == '/' || r == 0x7f }):
		return "has a character that no host has"
	}
	return ""
}

// header returns the values of the header that $http_ and the key name. A name with an underscore
// counts only where the configuration says so.
func (w *walk) header(at *conf.Directive, key string) ([]string, error) {
	var values []string
	for name, v := range w.req.Header {
		lower := strings.ToLower(name)
		if strings.ReplaceAll(lower, "-", "_") != key {
			continue
		}
		if strings.Contains(name, "_") {
			taken := w.takesUnderscores(w.server)
			if w.fallback.Directive != nil && taken != w.takesUnderscores(w.fallback) {
				return nil, undecided(at, "$http_%s: the default server reads the first headers, "+
					"and treats underscores otherwise", key)
			}
			if !taken {
				continue
			}
		}
		values = append(values, v...)
	}
	return values, nil
}

func (w *walk) takesUnderscores(server conf.Node) bool {
	return w.on(server, "underscores_in_headers") || w.off(server, "ignore_invalid_headers")
}

// cookie returns the value of a cookie as Nginx finds it in a Cookie header
// (ngx_http_parse_multi_header_lines). One of the ends closes a cookie of another name, only a
// semicolon the value.
func cookie(line, name, ends string) (value string, ok bool) {
	for line != "" {
		if len(line) >= len(name) && strings.EqualFold(line[:len(name)], name) {
			line = strings.TrimLeft(line[len(name):], " ")
			if rest, ok := strings.CutPrefix(line, "="); ok {
				value, _, _ := strings.Cut(strings.TrimLeft(rest, " "), ";")
				return value, true
			}
		}
		i := strings.IndexAny(line, ends)
		if i < 0 {
			break
		}
		line = strings.TrimLeft(line[i+1:], " ")
	}
	return "", false
}

// client is the client's address, which a trusted proxy may name (set_real_ip_from). It is the zero
// Addr when it is not known.
func (w *walk) client() (netip.Addr, error) {
	client := w.req.Client
	if !client.IsValid() {
		return client, nil
	}
	from := slices.Collect(w.inherited(w.server, "set_real_ip_from"))
	trusted := func(addr netip.Addr) bool { return w.trusts(from, addr) }
	header := "X-Real-IP"
	for n := range w.inherited(w.server, "real_ip_header") {
		header = n.Arg(0)
		if header == "proxy_protocol" && trusted(client) {
			return client, undecided(n.Directive, "the address of the PROXY protocol")
		}
	}
	for n := range w.inherited(w.at, "set_real_ip_from") {
		if !slices.ContainsFunc(from, func(m conf.Node) bool { return m.Directive == n.Directive }) {
			return client, undecided(n.Directive, "set_real_ip_from of a location")
		}
	}
	for _, n := range from {
		if _, err := network(n.Arg(0)); err != nil && n.Arg(0) != "unix:" {
			return client, undecided(n.Directive, "set_real_ip_from %s", n.Arg(0))
		}
	}
	values := w.req.Header.Values(header)
	if len(values) == 0 || !trusted(client) {
		return client, nil
	}
	if len(values) > 1 && !strings.EqualFold(header, "X-Forwarded-For") {
		return client, undecided(from[0].Directive, "the request has %s %d times", header,
			len(values))
	}
	recursive := w.on(w.server, "real_ip_recursive")
	named := strings.FieldsFunc(strings.Join(values, ","), func(r rune) bool {
		return r == ',' || r == ' '
	})
	for _, text := range slices.Backward(named) {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			withPort, err := netip.ParseAddrPort(text)
			if err != nil {
				return client, undecided(from[0].Directive, "%s %q", header, text)
			}
			addr = withPort.Addr()
		}
		client = addr
		if !recursive || !trusted(client) {
			break
		}
	}
	return client, nil
}

func (w *walk) trusts(from []conf.Node, addr netip.Addr) bool {
	return slices.ContainsFunc(from, func(n conf.Node) bool {
		p, err := network(n.Arg(0))
		return err == nil && (p.Contains(addr) || p.Contains(addr.Unmap()))
	})
}
