package route

import (
	"iter"
	"net/http"
	"strconv"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

// inherited are the directives of the name that count in the block: those of the innermost block
// that has any.
func (w *walk) inherited(n conf.Node, names ...string) iter.Seq[conf.Node] {
	return func(yield func(conf.Node) bool) {
		for n.Directive != nil {
			if n.Directive == w.router.http.Directive {
				for _, c := range w.router.settings(names...) {
					if !yield(c) {
						return
					}
				}
				n = outer(n)
				continue
			}
			found := false
			for c := range n.Children() {
				for _, name := range names {
					if c.Name() == name {
						found = true
						if !yield(c) {
							return
						}
					}
				}
			}
			if found {
				return
			}
			n = outer(n)
		}
	}
}

// outer is the block around a block, the zero Node for the outermost.
func outer(n conf.Node) conf.Node {
	p := n.Parent()
	if p == nil {
		return conf.Node{}
	}
	return conf.Node{Directive: p, Parents: n.Parents[:len(n.Parents)-1]}
}

// special answers with a status, or shows the error page for it. The error is errDone, errAgain or
// errNamed.
func (w *walk) special(code int, at conf.Node) error {
	w.status = code
	w.answer.Status = code
	switch code {
	case 408, 444, 499:
		w.step(at.Directive, "%d closes the connection", code)
		return errDone
	}
	if w.errorPage {
		return errDone
	}
	for page := range w.inherited(at, "error_page") {
		// Nginx shows no further one after an error in a block with error_page and without
		// recursive_error_pages, whether or not it has one for the error.
		w.errorPage = !w.on(at, "recursive_error_pages")
		args := page.Args()
		if len(args) < 2 {
			continue
		}
		codes, target := args[:len(args)-1], args[len(args)-1]
		overwrite := -1
		if last := codes[len(codes)-1]; strings.HasPrefix(last, "=") {
			codes, overwrite = codes[:len(codes)-1], 0
			if last != "=" {
				overwrite, _ = strconv.Atoi(last[1:])
			}
		}
		for _, c := range codes {
			if c == strconv.Itoa(code) {
				return w.showErrorPage(page, target, overwrite)
			}
		}
	}
	return errDone
}

func (w *walk) showErrorPage(page conf.Node, target string, overwrite int) error {
	if overwrite >= 0 {
		w.status = overwrite
	}
	target, err := w.expand(page.Directive, target)
	if err != nil {
		return err
	}
	w.step(page.Directive, "error_page for %d: %s", w.answer.Status, target)
	w.answer.Status = 0
	switch {
	case strings.HasPrefix(target, "/"):
		if w.method != http.MethodHead {
			w.method = http.MethodGet
		}
		return w.redirect(target)
	case strings.HasPrefix(target, "@"):
		return w.toNamed(page, target)
	}
	if err := checkHeader(page, target); err != nil {
		return err
	}
	w.answer.Location, w.answer.Status = target, http.StatusFound
	switch overwrite {
	case 301, 302, 303, 307, 308:
		w.answer.Status = overwrite
	}
	return errDone
}

// redirect begins again at the server with another path, as an internal redirect does.
func (w *walk) redirect(target string) error {
	w.changes--
	w.uri, w.args, _ = strings.Cut(target, "?")
	w.internal, w.rawUsed, w.located = true, false, true
	return errAgain
}

// toNamed goes on in a named location.
func (w *walk) toNamed(from conf.Node, name string) error {
	for n := range w.server.Find("location") {
		if n.Arg(0) == name {
			w.step(n.Directive, "location %s", name)
			w.changes--
			w.internal, w.at = true, n
			return errNamed
		}
	}
	w.step(from.Directive, "there is no location %s: 500", name)
	w.answer.Status = http.StatusInternalServerError
	return errDone
}

// on reports whether a flag that is off by default is on, in the block or around it.
func (w *walk) on(n conf.Node, name string) bool {
	for d := range w.inherited(n, name) {
		return d.Arg(0) == "on"
	}
	return false
}

// finished is an answer by Nginx itself that no error page is shown for.
func (w *walk) finished(code int) error {
	w.answer.Status = code
	if w.status != 0 {
		w.answer.Status = w.status // of the error that led here
	}
	return errDone
}
