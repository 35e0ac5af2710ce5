package route

import (
	"errors"
	"io/fs"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

// kinds of the entry at a path.
type found int

const (
	nothing found = iota
	aFile
	aDirectory
)

// lookup returns the kind of the entry at an absolute path of the machine.
func (w *walk) lookup(at *conf.Directive, name string) (found, error) {
	if w.req.Disk == nil {
		return nothing, undecided(at, "whether %s is there", name)
	}
	if !path.IsAbs(name) {
		return nothing, undecided(at, "%s: a path relative to Nginx's prefix", name)
	}
	// The kernel walks through the name before "." and "..": it must be a directory.
	for i := 1; i < len(name); i++ {
		step, _, _ := strings.Cut(name[i:], "/")
		if name[i-1] != '/' || step != "." && step != ".." {
			continue
		}
		before, err := w.lookup(at, name[:i])
		if err != nil || before != aDirectory {
			return nothing, err
		}
	}
	clean := strings.TrimPrefix(path.Clean(name), "/")
	if clean == "" {
		clean = "."
	}
	info, err := fs.Stat(w.req.Disk, clean)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid):
		return nothing, nil
	case err != nil && strings.Contains(err.Error(), "not a directory"):
		return nothing, nil
	case err != nil:
		return nothing, undecided(at, "%s: %v", name, err)
	}
	for n := range w.inherited(w.at, "disable_symlinks") {
		if n.Arg(0) != "off" {
			return nothing, undecided(n.Directive, "whether there is a link on the way to %s", name)
		}
	}
	switch {
	case info.IsDir():
		return aDirectory, nil
	case strings.HasSuffix(name, "/"):
		return nothing, nil // a file is no directory
	}
	return aFile, nil
}

// onDisk decides an if of files.
func (s *script) onDisk(n conf.Node, operator, text string) (bool, error) {
	name, err := s.expand(n.Directive, text)
	if err != nil {
		return false, err
	}
	what, err := s.lookup(n.Directive, name)
	if err != nil {
		return false, err
	}
	test, negated := strings.CutPrefix(operator, "!")
	yes := what != nothing
	switch test {
	case "-f":
		yes = what == aFile
	case "-d":
		yes = what == aDirectory
	}
	return yes != negated, nil
}

// base is the root or alias directive that counts, the zero Node for Nginx's default.
func (w *walk) base() conf.Node {
	for n := range w.inherited(w.at, "root", "alias") {
		return n
	}
	return conf.Node{}
}

// root is $document_root.
func (w *walk) root(at *conf.Directive) (string, error) {
	n := w.base()
	if n.Directive == nil {
		return "", undecided(at, "no root: the directory html below Nginx's prefix")
	}
	return w.expand(n.Directive, n.Arg(0))
}

// filename is the path on the disk of a path of the site.
func (w *walk) filename(at *conf.Directive, uri string) (string, error) {
	root, err := w.root(at)
	if err != nil {
		return "", err
	}
	n := w.base()
	if n.Name() != "alias" {
		return root + uri, nil
	}
	location := outer(n)
	for location.Directive != nil && location.Name() != "location" {
		location = outer(location)
	}
	if location.Directive == nil {
		return root + uri, nil
	}
	modifier, text := pattern(location)
	if modifier == "~" || modifier == "~*" {
		return root, nil
	}
	if !w.located || !strings.HasPrefix(uri, text) {
		return "", undecided(n.Directive, "alias of a path that was rewritten out of its location")
	}
	return root + uri[len(text):], nil
}

// tryFiles takes the first name that is there, else the last argument.
func (w *walk) tryFiles(n, in conf.Node) error {
	last := n.NumArgs() - 1
	if w.base().Name() == "alias" && last > 0 {
		return undecided(n.Directive, "try_files with alias")
	}
	for i := range last {
		text, directory := strings.CutSuffix(n.Arg(i), "/")
		name, err := w.expand(n.Directive, text)
		if err != nil {
			return err
		}
		file, err := w.filename(n.Directive, name)
		if err != nil {
			return err
		}
		what, err := w.lookup(n.Directive, file)
		if err != nil {
			return err
		}
		if directory && what == aDirectory || !directory && what == aFile {
			w.step(n.Directive, "try_files: %s is there", n.Arg(i))
			w.uri = name
			return w.handler(in)
		}
	}
	text := n.Arg(last)
	if code, ok := strings.CutPrefix(text, "="); ok {
		status, _ := strconv.Atoi(code)
		w.step(n.Directive, "try_files: no file is there: %d", status)
		if status < 300 {
			return w.finished(status)
		}
		return w.special(status, w.at)
	}
	text, err := w.expand(n.Directive, text)
	if err != nil {
		return err
	}
	w.step(n.Directive, "try_files: no file is there: %s", text)
	if strings.HasPrefix(text, "@") {
		return w.toNamed(n, text)
	}
	return w.redirect(text)
}

// files answers from the disk, as index and static do.
func (w *walk) files() error {
	d := w.at.Directive
	for n := range w.inherited(w.at, "dav_methods", "dav_ext_methods") {
		if slices.ContainsFunc(n.Args(), func(m string) bool {
			return strings.EqualFold(m, w.method)
		}) {
			return undecided(n.Directive, "%s %s", n.Name(), w.method)
		}
	}
	switch w.method {
	case http.MethodGet, http.MethodHead, http.MethodPost:
	default:
		w.step(d, "nothing passes the request on, and files are for GET and HEAD: 405")
		return w.special(http.StatusMethodNotAllowed, w.at)
	}
	if w.req.Disk == nil {
		return w.unknownFiles()
	}
	name, err := w.filename(d, w.uri)
	if err != nil {
		return err
	}
	what, err := w.lookup(d, name)
	if err != nil {
		return err
	}
	if strings.HasSuffix(w.uri, "/") {
		return w.index(name, what)
	}
	switch what {
	case nothing:
		w.step(d, "file %s is not there: 404", name)
		return w.special(http.StatusNotFound, w.at)
	case aDirectory:
		w.answer.Location = escape(w.uri) + "/"
		if w.args != "" {
			w.answer.Location += "?" + w.args
		}
		w.step(d, "%s is a directory: redirected to %s", name, w.answer.Location)
		return w.special(http.StatusMovedPermanently, w.at)
	}
	if w.method == http.MethodPost {
		w.step(d, "file %s, and files are for GET and HEAD: 405", name)
		return w.special(http.StatusMethodNotAllowed, w.at)
	}
	w.step(d, "file %s", name)
	w.answer.File = name
	return w.finished(http.StatusOK)
}

// index answers for a path that ends in a slash.
func (w *walk) index(dir string, what found) error {
	for _, name := range w.indexes() {
		text, err := w.expand(w.at.Directive, name)
		if err != nil {
			return err
		}
		if strings.HasPrefix(text, "/") {
			return w.redirect(text + w.query())
		}
		is, err := w.lookup(w.at.Directive, dir+text)
		if err != nil {
			return err
		}
		if is == aFile && what == aDirectory {
			w.step(w.at.Directive, "index %s", dir+text)
			return w.redirect(w.uri + text + w.query())
		}
		if what != aDirectory {
			break // Nginx looks for the directory when the first index is not there
		}
		if is == aDirectory {
			return undecided(w.at.Directive, "the index %s is a directory", dir+text)
		}
	}
	switch {
	case what == nothing:
		w.step(w.at.Directive, "%s is not there: 404", dir)
		return w.special(http.StatusNotFound, w.at)
	case what == aFile: // an alias without a slash at its end
		w.step(w.at.Directive, "%s is no directory: 500", dir)
		return w.special(http.StatusInternalServerError, w.at)
	case w.method == http.MethodPost:
		return undecided(w.at.Directive, "a directory asked by POST")
	case w.on(w.at, "autoindex"):
		w.step(w.at.Directive, "list of %s", dir)
		return w.finished(http.StatusOK)
	}
	w.step(w.at.Directive, "%s has no index: 403", dir)
	return w.special(http.StatusForbidden, w.at)
}

func (w *walk) query() string {
	if w.args == "" {
		return ""
	}
	return "?" + w.args
}

func (w *walk) indexes() []string {
	var names []string
	for n := range w.inherited(w.at, "index") {
		names = append(names, n.Args()...)
	}
	if names == nil {
		return []string{"index.html"}
	}
	return names
}

// unknownFiles answers when nothing is known of the disk: from files, unless the existence of a
// file could lead elsewhere.
func (w *walk) unknownFiles() error {
	for page := range w.inherited(w.at, "error_page") {
		for _, code := range page.Args() {
			if (code == "404" || code == "403" || code == "405") && !w.errorPage {
				return undecided(page.Directive, "whether the file of %s is there: error_page %s",
					w.uri, code)
			}
		}
	}
	if strings.HasSuffix(w.uri, "/") {
		for _, name := range w.indexes() {
			if err := w.otherThanFiles(name); err != nil {
				return err
			}
		}
	}
	w.step(w.at.Directive, "nothing passes the request on: answered from files")
	return errDone
}

// otherThanFiles is undecided when the index leads to something that is not a file as well.
func (w *walk) otherThanFiles(index string) error {
	if strings.Contains(index, "$") {
		return undecided(w.at.Directive, "the index %s of %s", index, w.uri)
	}
	try := w.copy()
	try.answer = Answer{}
	target := w.uri + index
	if strings.HasPrefix(index, "/") {
		target = index
	}
	err := try.follow(try.redirect(target + w.query()))
	if ignoreDone(err) == nil && try.answer.Upstream == "" && try.answer.Status == 0 {
		return nil
	}
	return undecided(w.at.Directive, "whether the index %s of %s is there", index, w.uri)
}
