package route

import (
	"errors"
	"maps"
	"net/http"
	"strconv"
	"strings"
)

// absolute makes a URL of the path in a redirect, as ngx_http_header_filter does.
func (w *walk) absolute() {
	if !strings.HasPrefix(w.answer.Location, "/") || w.off(w.at, "absolute_redirect") {
		return
	}
	host := w.host
	if w.on(w.at, "server_name_in_redirect") {
		host = w.serverName()
	}
	standard := 80
	if w.scheme == "https" {
		standard = 443
	}
	if w.port != standard && !w.off(w.at, "port_in_redirect") {
		host += ":" + strconv.Itoa(w.port)
	}
	w.answer.Location = w.scheme + "://" + host + w.answer.Location
}

// serverName is $server_name: the first name, in lower case and without a dot in front, or the text
// of an expression.
func (w *walk) serverName() string {
	for n := range w.server.Find("server_name") {
		if expr, ok := strings.CutPrefix(n.Arg(0), "~"); ok {
			return expr
		}
		return strings.TrimPrefix(strings.ToLower(n.Arg(0)), ".")
	}
	return ""
}

// beside follows the requests that Nginx makes beside the one that is asked.
func (w *walk) beside() error {
	names := []string{"mirror", "auth_request"}
	if w.answer.Status == 0 || w.answer.Status == http.StatusOK {
		names = append(names, "add_before_body", "add_after_body")
	}
	if w.answer.Upstream == "" && w.answer.File == "" {
		return nil // return and rewrite answer before any other request is made
	}
	for _, name := range names {
		for n := range w.inherited(w.at, name) {
			if n.Arg(0) == "off" || n.Arg(0) == "" {
				continue
			}
			text, err := w.subrequest(n.Arg(0), name == "mirror")
			if err != nil {
				return err
			}
			w.answer.Beside = append(w.answer.Beside, Step{At: n.Pos(),
				Text: name + " " + n.Arg(0) + ": " + text})
		}
	}
	if w.on(w.at, "ssi") {
		for n := range w.inherited(w.at, "ssi") {
			w.answer.Beside = append(w.answer.Beside, Step{At: n.Pos(),
				Text: "ssi: the page names further requests"})
		}
	}
	return nil
}

// subrequest says where a request to a path goes that Nginx makes. A mirror has the method and the
// arguments of the request that it copies.
func (w *walk) subrequest(path string, mirror bool) (string, error) {
	sub := w.copy()
	sub.answer = Answer{}
	sub.errorPage, sub.status = false, 0
	if !mirror {
		sub.method, sub.args = http.MethodGet, ""
	}
	sub.uri, sub.internal, sub.rawUsed, sub.located, sub.changes = path, true, false, true, 11
	err := ignoreDone(sub.follow(errAgain))
	switch {
	case errors.Is(err, ErrUndecided):
		return "undecided", nil
	case err != nil:
		return "", err
	case sub.answer.Upstream != "":
		return "to " + sub.answer.Upstream + ", asked for " + sub.answer.URI, nil
	case sub.answer.Status != 0:
		return strconv.Itoa(sub.answer.Status), nil
	}
	return "from files", nil
}

// copy is a walk that goes on from here on its own.
func (w *walk) copy() *walk {
	c := *w
	c.maps, c.set, c.named, c.code = maps.Clone(w.maps), maps.Clone(w.set), maps.Clone(w.named),
		maps.Clone(w.code)
	return &c
}
