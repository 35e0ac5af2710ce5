package route

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

var variable = regexp.MustCompile(`\$(?:\{([A-Za-z0-9_]+)\}|([A-Za-z0-9_]+))`)

// expand replaces the variables of a text.
func (w *walk) expand(at *conf.Directive, text string) (string, error) {
	return w.expandWith(at, text, func(capture string) string { return capture })
}

// expandWith is expand with the captures passed through quote. As in Nginx the variables come
// first: a map among them may match an expression of its own, and the captures are those of that
// match then.
func (w *walk) expandWith(at *conf.Directive, text string, quote func(string) string) (string,
	error) {
	values := map[string]string{}
	for _, m := range variable.FindAllString(text, -1) {
		if name := strings.Trim(m, "${}"); name[0] < '1' || name[0] > '9' {
			value, err := w.variable(at, strings.ToLower(name))
			if err != nil {
				return "", err
			}
			values[m] = value
		}
	}
	return variable.ReplaceAllStringFunc(text, func(m string) string {
		name := strings.Trim(m, "${}")
		if name[0] < '1' || name[0] > '9' {
			return values[m]
		}
		// Only one digit belongs to a capture.
		if i := int(name[0] - '0'); i < len(w.captures) {
			return quote(w.captures[i]) + name[1:]
		}
		return name[1:]
	}), nil
}

func (w *walk) variable(at *conf.Directive, name string) (string, error) {
	if n, ok := w.code[name]; ok {
		return "", undecided(n.Directive, "%s $%s", n.Name(), name)
	}
	if v, ok := w.set[name]; ok {
		return v, nil
	}
	if v, ok := w.named[name]; ok {
		return v, nil
	}
	switch name {
	case "host":
		return w.host, nil
	case "uri", "document_uri":
		return w.uri, nil
	case "request_uri":
		return w.raw, nil
	case "args", "query_string":
		return w.args, nil
	case "is_args":
		if w.args != "" {
			return "?", nil
		}
		return "", nil
	case "scheme":
		return w.scheme, nil
	case "https":
		if w.scheme == "https" {
			return "on", nil
		}
		return "", nil
	case "request_method":
		return w.method, nil
	case "server_port":
		return strconv.Itoa(w.port), nil
	case "remote_addr":
		client, err := w.client()
		if err != nil || client.IsValid() {
			return client.String(), err
		}
	case "server_addr":
		if w.req.Addr.IsValid() {
			return w.req.Addr.String(), nil
		}
	case "http_host":
		return w.hostport, nil
	case "server_name":
		return w.serverName(), nil
	case "document_root":
		return w.root(at)
	case "request_filename":
		return w.filename(at, w.uri)
	}
	if key, ok := strings.CutPrefix(name, "arg_"); ok {
		for _, pair := range strings.Split(w.args, "&") {
			if k, v, ok := strings.Cut(pair, "="); ok && strings.EqualFold(k, key) {
				return v, nil
			}
		}
		return "", nil
	}
	if key, ok := strings.CutPrefix(name, "http_"); ok {
		values, err := w.header(at, key)
		switch {
		case err != nil:
			return "", err
		case len(values) < 2:
			return strings.Join(values, ""), nil
		case key == "cookie":
			return strings.Join(values, "; "), nil
		case key == "x_forwarded_for":
			return strings.Join(values, ", "), nil
		}
		return "", undecided(at, "$%s: the request has the header %d times, and Nginx before "+
			"1.23 takes the first", name, len(values))
	}
	if key, ok := strings.CutPrefix(name, "cookie_"); ok {
		for _, line := range w.req.Header.Values("Cookie") {
			value, ok := cookie(line, key, ";,")
			if newer, _ := cookie(line, key, ";"); newer != value {
				return "", undecided(at, "$%s: newer Nginx takes no comma for the end of a cookie",
					name)
			}
			if ok {
				return value, nil
			}
		}
		return "", nil
	}
	if n, ok := w.router.codes[name]; ok {
		return "", undecided(n.Directive, "%s $%s", n.Name(), name)
	}
	if m, ok := w.router.maps[name]; ok {
		value, ok := w.maps[name]
		if !ok {
			var err error
			switch m.Name() {
			case "map":
				value, err = w.mapped(m)
			case "geo":
				value, err = w.geo(m)
			default:
				value, err = w.split(m)
			}
			if err != nil {
				return "", err
			}
			if !volatile(m) {
				w.maps[name] = value
			}
		}
		return value, nil
	}
	if w.router.setNames()[name] {
		return "", nil // set somewhere, not on this way
	}
	return "", undecided(at, "$%s", name)
}

// volatile reports whether a map is found anew each time that a directive asks for it.
func volatile(m conf.Node) bool {
	for n := range m.Find("volatile") {
		if n.NumArgs() == 0 {
			return true
		}
	}
	return false
}

// mapped is the value of a map: the exact key, the longest wildcard when keys are host names, the
// first expression, the default.
func (w *walk) mapped(m conf.Node) (string, error) {
	if w.depth > 20 {
		return "", undecided(m.Directive, "maps that depend on each other")
	}
	w.depth++
	defer func() { w.depth-- }()
	source, err := w.expand(m.Directive, m.Arg(0))
	if err != nil {
		return "", err
	}
	hostnames := false
	for n := range m.Children() {
		hostnames = hostnames || n.Name() == "hostnames" && n.NumArgs() == 0
	}
	if hostnames {
		source = strings.TrimSuffix(source, ".")
	}
	var found, fallback *conf.Directive
	var exprs []conf.Node
	rank := 0 // of found: exact above wildcards, wildcards by length
	for n := range m.Children() {
		key := n.Name()
		if n.NumArgs() != 1 || key == "include" {
			continue
		}
		lower, text := strings.ToLower(strings.TrimPrefix(key, `\`)), strings.ToLower(source)
		score := 0
		switch {
		case key == "default":
			fallback = n.Directive
		case strings.HasPrefix(key, "~"):
			exprs = append(exprs, n)
		case lower == text:
			score = 1 << 30
		case hostnames && strings.HasPrefix(lower, ".") &&
			(text == lower[1:] || strings.HasSuffix(text, lower)):
			score = 1<<20 + len(lower)
		case hostnames && strings.HasPrefix(lower, "*.") && strings.HasSuffix(text, lower[1:]):
			score = 1<<20 + len(lower)
		case hostnames && strings.HasSuffix(lower, ".*") &&
			strings.HasPrefix(text, lower[:len(lower)-1]):
			score = 1<<10 + len(lower)
		}
		if score > rank {
			rank, found = score, n.Directive
		}
	}
	for _, n := range exprs { // after all keys
		if found != nil {
			break
		}
		expr, caseless := strings.CutPrefix(n.Name()[1:], "*")
		yes, err := w.match(n.Directive, expr, caseless, source)
		if err != nil {
			return "", err
		}
		if yes {
			found = n.Directive
		}
	}
	if found == nil {
		found = fallback
	}
	if found == nil {
		return "", nil
	}
	return w.expand(found, found.Arg(0))
}
