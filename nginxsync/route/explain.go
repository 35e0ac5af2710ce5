package route

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

// Request is the request that Explain follows.
type Request struct {
	// absolute; its port selects the listens that count
	URL string
	// The default is GET.
	Method string
	// Host, when it has one, goes before the host of the URL
	Header http.Header
	// the address that the request comes to; the zero Addr for an IPv4 one that no listen names
	Addr netip.Addr
	// of the client; the zero Addr leaves $remote_addr, allow and deny undecided
	Client netip.Addr
	// Disk is the file system of the machine, from its root: the file /srv/www/a is srv/www/a. Nil
	// leaves results that depend on files undecided, such as those of try_files.
	Disk fs.FS
}

// Answer is where the request goes.
type Answer struct {
	Steps []Step
	// of an answer by Nginx itself; 0 when the request is passed on, or answered from files that
	// are not known
	Status int
	// of a redirect, as the client gets it: absolute_redirect makes a URL of a path
	Location string
	// host part of proxy_pass and its relatives; "unix:" and the path of a socket
	Upstream string
	// that the upstream is asked for
	URI string
	// absolute path of the file that answers, when Request.Disk has it
	File string
	// Headers are the directives that add headers and parameters to the upstream's request besides
	// the client's own headers, such as proxy_set_header and fastcgi_param, as they are written.
	Headers []Step
	// Unless are conditions that lead the request elsewhere and are not in the configuration: a
	// password, the answer of an auth_request, an answer of the upstream that Nginx itself acts on.
	Unless []Step
	// Beside are the requests that Nginx makes beside this one, each with where it goes: those of
	// mirror, auth_request, add_before_body and add_after_body; and whether the page may name
	// others by SSI.
	Beside []Step
}

// Step is one decision of the routing.
type Step struct {
	At   conf.Pos
	Text string
}

// String is "file:line: text".
func (s Step) String() string { return s.At.String() + ": " + s.Text }

// ErrUndecided is in the chain of the error when the way depends on more than the request and the
// configuration.
var ErrUndecided = errors.New("undecided")

// walk is the state of one request.
type walk struct {
	router    *Router
	req       Request
	method    string // GET after an error page
	hostport  string // as a client sends it
	host      string // normalized
	port      int
	scheme    string
	uri       string // decoded and normalized, changed by rewrites
	args      string
	raw       string // path and query as the client sent them
	quoted    bool   // the path has percent signs
	plus      bool   // the path has a plus sign
	rawUsed   bool   // raw still stands for uri: no rewrite or internal redirect has changed it
	internal  bool   // a rewrite, an error page or a fallback led here
	located   bool   // no rewrite with break has cut the tie between uri and the location's prefix
	errorPage bool   // one was shown already
	status    int    // that the answer has in the place of its own; 0 for none
	changes   int    // of the uri that are left
	server    conf.Node
	fallback  conf.Node       // the default server of the socket
	at        conf.Node       // whose settings count: server, location, if or limit_except
	reached   *conf.Directive // the first location; nil before
	held      *conf.Directive // the pass of an if of the location that was true; nil for none
	captures  []string
	named     map[string]string
	set       map[string]string
	code      map[string]conf.Node // variables that code sets
	maps      map[string]string    // values of map variables: one is found once in a request
	bad       error                // an expression that cannot be decided
	depth     int                  // of map variables
	answer    Answer
	// directives of answer.Headers
	headerNodes []conf.Node
}

// Explain walks one request through the tree: see Router.Explain.
func Explain(tree *conf.Tree, req Request) (*Answer, error) { return NewRouter(tree).Explain(req) }

// Explain walks the request through the tree. On an error the answer has the steps so far.
func (r *Router) Explain(req Request) (*Answer, error) {
	w := r.walk(req)
	err := w.start()
	if err == nil {
		err = w.run(r.socket(socketKey{port: w.port, addr: w.req.Addr}))
	}
	return &w.answer, err
}

func (r *Router) walk(req Request) *walk {
	return &walk{router: r, req: req, rawUsed: true, located: true, changes: 11,
		code: map[string]conf.Node{},
		set:  map[string]string{}, maps: map[string]string{}, named: map[string]string{}}
}

func (w *walk) start() error {
	// Nginx takes characters that a URL must not have
	u, err := url.Parse(strings.Map(ascii, w.req.URL))
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return fmt.Errorf("url %q: want http:// or https://, a host and a path", w.req.URL)
	}
	standard := map[string]int{"http": 80, "https": 443}[u.Scheme]
	w.scheme, w.port, w.hostport = u.Scheme, standard, u.Host
	if p := u.Port(); p != "" {
		w.port, _ = strconv.Atoi(p)
	}
	if w.port == standard {
		w.hostport = strings.TrimSuffix(u.Host, ":"+u.Port()) // clients leave it out
	}
	w.hostport = cmp.Or(w.req.Header.Get("Host"), w.hostport)
	host := w.hostport
	if h, _, ok := strings.Cut(host, ":"); ok && !strings.HasPrefix(host, "[") {
		host = h
	}
	w.host = strings.TrimSuffix(strings.ToLower(host), ".")
	w.method = cmp.Or(w.req.Method, http.MethodGet)
	_, rest, _ := strings.Cut(w.req.URL, "://")
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		w.raw = rest[i:]
	}
	if w.raw == "" || w.raw[0] == '?' {
		w.raw = "/" + w.raw
	}
	w.raw, _, _ = strings.Cut(w.raw, "#")
	path, _, _ := strings.Cut(w.raw, "?")
	w.quoted, w.plus = strings.Contains(path, "%"), strings.Contains(path, "+")
	return nil
}

// ascii replaces the characters that url.Parse refuses in a path.
func ascii(r rune) rune {
	if r <= ' ' || r >= 0x7f || r == '%' {
		return '_'
	}
	return r
}

func (w *walk) step(d *conf.Directive, format string, args ...any) {
	w.answer.Steps = append(w.answer.Steps, Step{At: d.Pos(), Text: fmt.Sprintf(format, args...)})
}

func undecided(d *conf.Directive, format string, args ...any) error {
	return fmt.Errorf("%w: cannot be told from the request and the configuration alone: %w",
		d.Errorf(format, args...), ErrUndecided)
}

var (
	errDone  = errors.New("done")           // the answer is complete
	errAgain = errors.New("again")          // uri and args are new: begin at the server
	errNamed = errors.New("named location") // at is new: go on in it
)

func ignoreDone(err error) error {
	if errors.Is(err, errDone) {
		return nil
	}
	return err
}

// run follows the request from the servers of its socket to the answer.
func (w *walk) run(s *socket) (err error) {
	if s.err != nil {
		return s.err
	}
	defer func() {
		if err = ignoreDone(err); err == nil {
			w.absolute()
			err = w.beside()
		}
	}()
	w.server, w.fallback = s.fallback.server, s.fallback.server
	if strings.ContainsFunc(w.hostport, func(r rune) bool { return r >= utf8.RuneSelf }) {
		return undecided(w.server.Directive, "a host of other characters than ASCII, which newer "+
			"Nginx refuses")
	}
	if why := hostFault(w.hostport); why != "" {
		return w.badRequest("the host " + why)
	}
	if w.server, err = w.byName(s); err != nil {
		return err
	}
	w.at = w.server
	// Nginx reads the path before it knows the host: the default server decides whether its slashes
	// are merged.
	path, args, ok := normalize(w.raw, !s.keepsSlashes)
	if !ok {
		return w.badRequest("the path is malformed")
	}
	w.uri, w.args = path, args
	if early, err := w.early(s); early {
		return w.follow(err)
	}
	return w.follow(errAgain)
}

// badRequest is the answer of the default server. An error page for it would be asked for without a
// host.
func (w *walk) badRequest(why string) error {
	for page := range w.inherited(w.fallback, "error_page") {
		if slices.Contains(page.Args(), "400") {
			return undecided(page.Directive, "%s: error_page 400", why)
		}
	}
	w.answer.Status = http.StatusBadRequest
	w.step(w.fallback.Directive, "%s: 400", why)
	return nil
}

// toHTTPS is the status of plain HTTP on a socket of TLS for error_page; the answer has 400.
const toHTTPS = 497

// early answers the requests that Nginx refuses before it looks for a location.
func (w *walk) early(s *socket) (bool, error) {
	switch tls := s.tls(); {
	case !tls && w.scheme == "https":
		return true, undecided(w.server.Directive, "https to a socket without TLS")
	case tls && w.scheme == "http" && w.method != http.MethodTrace &&
		w.method != http.MethodConnect:
		w.step(w.server.Directive, "plain HTTP, and the socket has TLS: 400")
		err := w.special(toHTTPS, w.server)
		if w.answer.Status == toHTTPS {
			w.answer.Status = http.StatusBadRequest
		}
		return true, err
	case w.method == http.MethodConnect:
		return true, undecided(w.server.Directive, "CONNECT: Nginx refuses it by 405, newer ones by "+
			"400 or not at all")
	case w.method != http.MethodTrace:
		return false, nil
	}
	w.step(w.server.Directive, "%s is not allowed: 405", w.method)
	return true, w.special(http.StatusMethodNotAllowed, w.server)
}

// follow goes on where err says, until the answer is complete.
func (w *walk) follow(err error) error {
	for w.changes > 0 {
		switch {
		case errors.Is(err, errAgain):
			err = w.fromServer()
		case errors.Is(err, errNamed):
			if err = w.inside(w.at); errors.Is(err, errLocation) {
				w.changes--
				err = w.fromLocation()
			}
		default:
			return err
		}
	}
	if !errors.Is(err, errAgain) && !errors.Is(err, errNamed) {
		return err
	}
	w.answer.Status = http.StatusInternalServerError
	w.step(w.server.Directive, "more than 10 rewrites and internal redirects: 500")
	return nil
}

// fromServer runs the rewrites of the server and goes on in the location.
func (w *walk) fromServer() error {
	w.at = w.server
	for n := range w.server.Children() {
		if strings.HasPrefix(n.Name(), "server_rewrite_by") {
			return undecided(n.Directive, "%s", n.Name())
		}
	}
	if _, err := w.rewrites(w.server, true); err != nil {
		return err
	}
	return w.fromLocation()
}

// fromLocation looks for the location of the path until no rewrite changes it any more.
func (w *walk) fromLocation() error {
	for w.changes > 0 {
		location, kind := w.location(w.server)
		if w.bad != nil {
			return w.bad
		}
		if location.Directive == nil {
			w.at, w.held = w.server, nil
			return w.content(w.server)
		}
		w.step(location.Directive, "location %s, %s", strings.Join(location.Args(), " "), kind)
		w.at = location
		if w.reached == nil {
			w.reached = location.Directive
		}
		for n := range location.Find("internal") {
			if !w.internal {
				w.step(n.Directive, "internal, and the request comes from outside: 404")
				return w.special(http.StatusNotFound, location)
			}
		}
		if kind == kindRedirect {
			w.answer.Location = escape(w.uri) + "/" + w.query()
			return w.special(http.StatusMovedPermanently, location)
		}
		if err := w.inside(location); !errors.Is(err, errLocation) {
			return err
		}
		w.changes--
	}
	return errAgain
}

var errLocation = errors.New("another location")

// inside runs the rewrites of a location and then answers. The error is errLocation when they
// changed the path.
func (w *walk) inside(location conf.Node) error {
	w.at, w.held = location, nil
	if block := w.excluded(location); block.Directive != nil {
		// The rewrites of the location are not those of the block.
		w.step(block.Directive, "limit_except holds: the method is %s", w.method)
		w.at = block
		return w.content(location)
	}
	again, err := w.rewrites(location, false)
	if err != nil {
		return err
	}
	if again {
		return errLocation
	}
	return w.content(location)
}

// excluded is the limit_except block of the location when it counts for the method.
func (w *walk) excluded(location conf.Node) conf.Node {
	for n := range location.Find("limit_except") {
		allowed := false
		for _, m := range n.Args() {
			allowed = allowed || strings.EqualFold(m, w.method) || strings.EqualFold(m, "GET") &&
				w.method == http.MethodHead
		}
		if !allowed {
			return n
		}
	}
	return conf.Node{}
}

// off reports whether a flag that is on by default is off, in the block or around it.
func (w *walk) off(n conf.Node, name string) bool {
	for d := range w.inherited(n, name) {
		return d.Arg(0) == "off"
	}
	return false
}
