package route

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

// Request is what is asked about.
type Request struct {
	URL    string      // absolute; its port says which listens count
	Method string      // The default is GET.
	Header http.Header // Host, when it has one, goes before the host of the URL
	Addr   netip.Addr  // the address that the request comes to; the zero Addr for one that no listen names
	Client netip.Addr  // of the client; the zero Addr leaves $remote_addr undecided
}

// Answer is where the request goes.
type Answer struct {
	Steps    []Step
	Status   int    // of an answer by Nginx itself; 0 when the request is passed on
	Location string // of a redirect: as return or rewrite has it, or the path of a folder
	Upstream string // host part of proxy_pass and its relatives
	URI      string // that the upstream is asked for
}

// Step is one decision on the way.
type Step struct {
	At   conf.Pos
	Text string
}

// String is "file:line: text".
func (s Step) String() string { return s.At.String() + ": " + s.Text }

// ErrUndecided is in the chain of the error when the way depends on more than the request and the
// configuration.
var ErrUndecided = errors.New("undecided")

// walk is the state of one request on its way.
type walk struct {
	tree     *conf.Tree
	req      Request
	host     string // normalized
	port     int
	scheme   string
	uri      string // decoded and normalized, changed by rewrites
	args     string
	raw      string // path and query as the client sent them
	rawUsed  bool   // raw still stands for uri: no rewrite has changed it
	located  bool   // no rewrite with break has cut the tie between uri and the location's prefix
	captures []string
	named    map[string]string
	set      map[string]string
	maps     map[string]string // values of map variables: one is found once in a request
	branch   conf.Node         // the if block that was entered last
	bad      error             // an expression that cannot be decided
	depth    int               // of map variables
	answer   Answer
}

// Explain walks the request through the tree. On an error the answer has the steps so far.
func Explain(tree *conf.Tree, req Request) (*Answer, error) {
	w := &walk{tree: tree, req: req, rawUsed: true, located: true, set: map[string]string{}, maps: map[string]string{}, named: map[string]string{}}
	if err := w.start(); err != nil {
		return &w.answer, err
	}
	err := w.run()
	return &w.answer, err
}

func (w *walk) start() error {
	u, err := url.Parse(w.req.URL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return fmt.Errorf("url %q: want http:// or https://, a host and a path", w.req.URL)
	}
	w.scheme, w.port = u.Scheme, map[string]int{"http": 80, "https": 443}[u.Scheme]
	if p := u.Port(); p != "" {
		w.port, _ = strconv.Atoi(p)
	}
	host := u.Host
	if h := w.req.Header.Get("Host"); h != "" {
		host = h
	}
	if h, _, ok := strings.Cut(host, ":"); ok && !strings.HasPrefix(host, "[") {
		host = h
	}
	w.host = strings.TrimSuffix(strings.ToLower(host), ".")
	if w.req.Method == "" {
		w.req.Method = http.MethodGet
	}
	_, rest, _ := strings.Cut(w.req.URL, "://")
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		w.raw = rest[i:]
	}
	if w.raw == "" || w.raw[0] == '?' {
		w.raw = "/" + w.raw
	}
	w.raw, _, _ = strings.Cut(w.raw, "#")
	return nil
}

func (w *walk) step(d *conf.Directive, format string, args ...any) {
	w.answer.Steps = append(w.answer.Steps, Step{At: d.Pos(), Text: fmt.Sprintf(format, args...)})
}

func undecided(d *conf.Directive, format string, args ...any) error {
	return fmt.Errorf("%w: cannot be told from the request and the configuration alone: %w",
		d.Errorf(format, args...), ErrUndecided)
}

// errDone ends the walk: the answer is complete.
var errDone = errors.New("done")

func (w *walk) run() error {
	all, err := w.listening()
	if err != nil {
		return err
	}
	server, err := w.byName(all)
	if err != nil {
		return err
	}
	// Nginx reads the path before it knows the host: it is the default server that says what to do with its slashes.
	path, args, ok := normalize(w.raw, !off(defaultServer(all).server, "merge_slashes"))
	if !ok {
		w.answer.Status = http.StatusBadRequest
		w.step(server.Directive, "the path is malformed: 400")
		return nil
	}
	w.uri, w.args = path, args
	if _, err := w.rewrites(server, true); err != nil {
		return ignoreDone(err)
	}
	for range 11 {
		location, kind := w.location(server)
		if w.bad != nil {
			return w.bad
		}
		if location.Directive == nil {
			return w.content(server)
		}
		w.step(location.Directive, "location %s, %s", strings.Join(location.Args(), " "), kind)
		if kind == kindRedirect {
			w.answer.Status, w.answer.Location = http.StatusMovedPermanently, escape(w.uri)+"/"
			if w.args != "" {
				w.answer.Location += "?" + w.args
			}
			return nil
		}
		again, err := w.rewrites(location, false)
		if err != nil {
			return ignoreDone(err)
		}
		if !again {
			return w.content(location)
		}
	}
	w.answer.Status = http.StatusInternalServerError
	w.step(server.Directive, "more than 10 rewrites: 500")
	return nil
}

func ignoreDone(err error) error {
	if errors.Is(err, errDone) {
		return nil
	}
	return err
}

// off reports whether a flag that is on by default is off, in the block or around it.
func off(n conf.Node, name string) bool {
	for d := range n.Find(name) {
		return d.Arg(0) == "off"
	}
	if p := n.Parent(); p != nil {
		return off(conf.Node{Directive: p, Parents: n.Parents[:len(n.Parents)-1]}, name)
	}
	return false
}
