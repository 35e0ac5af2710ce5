package transform

import (
	"cmp"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

// main sets the directives that Rules.Main names, and accepts or refuses blocks that carry traffic
// outside the http context.
func (t *transform) main() {
	set := map[string]bool{}
	for n := range t.tree.Top() {
		name := n.Name()
		value, named := t.rules.Main[name]
		switch {
		case slices.Contains(t.rules.Drop, name): // done
		case n.IsBlock() && name != "http" && name != "events" && slices.Contains(t.rules.Accept,
			name):
			t.changed(n.Directive, "accept", "%s is kept as it is, with the ports and the "+
				"machines that it names: the rules accept it", name)
			t.acceptedBlocks[n.Directive] = true
		case n.IsBlock() && name != "http" && name != "events":
			t.refuse(n.Directive, "%s block: nothing maps its upstreams; name it in the rules "+
				"under drop to leave it out, or under accept to keep it as it is", name)
		case !named || name == "load_module":
		case value == "" || set[name]:
			t.edit.Remove(n.Directive)
			t.changed(n.Directive, "main", "%s is removed", name)
		default:
			set[name] = true
			t.edit.Replace(n.Directive, name+" "+value+";")
			t.changed(n.Directive, "main", "%s is set to %s", name, value)
		}
	}
	var head strings.Builder
	for _, name := range slices.Sorted(maps.Keys(t.rules.Main)) {
		if value := t.rules.Main[name]; value != "" && !set[name] {
			head.WriteString(name + " " + value + ";\n")
			t.changes = append(t.changes, change{rule: "main", reason: name + " is added"})
		}
	}
	head.WriteString(t.modules())
	if head.Len() > 0 {
		t.edit.PrependFile(t.tree.Main, strings.TrimSuffix(head.String(), "\n"))
	}
}

func (t *transform) modules() string {
	loaded := map[string]bool{}
	for n := range t.tree.Find("load_module") {
		loaded[path.Base(n.Arg(0))] = true
	}
	var b strings.Builder
	for _, m := range t.rules.Snippets.Modules {
		if !loaded[path.Base(m)] {
			b.WriteString("load_module " + conf.Quote(m) + ";\n")
			t.changes = append(t.changes, change{rule: "driver", reason: "loads " + m})
		}
	}
	return b.String()
}

func set(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, name := range names {
		m[name] = true
	}
	return m
}

// paths maps path arguments and makes absolute includes point into the new tree.
func (t *transform) paths(n conf.Node) {
	name := n.Name()
	if _, ok := t.rules.Main[name]; ok && len(n.Parents) == 0 {
		return
	}
	if name == "include" {
		t.include(n)
		return
	}
	if t.productionsKey(n) {
		return
	}
	d := t.info(name)
	i, key, value := place(n, cmp.Or(d.writes, d.reads))
	if i < 0 || noPath(name, value) {
		return
	}
	if to, ok := t.mapped(value); ok {
		if strings.HasSuffix(name, "_cache_path") || strings.HasSuffix(name, "_temp_path") {
			t.dirs = append(t.dirs, directory{n.Directive, value, to})
		}
		switch {
		case to != "off":
			t.edit.ReplaceArg(n.Directive, i, key+to)
		case name == "access_log":
			t.edit.ReplaceArgs(n.Directive, to)
		case key != "":
			t.edit.ReplaceArgs(n.Directive, slices.Delete(n.Args(), i, i+1)...)
		default: // without the file the directive does nothing
			t.edit.Remove(n.Directive)
		}
		t.changed(n.Directive, "paths", "%s is mapped to %s", value, to)
		return
	}
	if modules := t.rules.Snippets.Modules; name == "load_module" && !path.IsAbs(value) &&
		len(modules) > 0 {
		// Debian's trees name modules below the prefix that Nginx was built for.
		to := path.Join(path.Dir(modules[0]), path.Base(value))
		t.edit.ReplaceArg(n.Directive, i, to)
		t.changed(n.Directive, "paths", "%s is below Nginx's own prefix; %s is loaded", value, to)
		return
	}
	if name == "error_log" && value == "off" {
		// Nginx writes a file called off in its prefix; the site wants no log.
		t.edit.ReplaceArgs(n.Directive, "/dev/null", "crit")
		t.changed(n.Directive, "paths", "off names a file; the log goes to /dev/null")
		return
	}
	if d.is(writes) {
		t.refuse(n.Directive, "%s %s: nothing maps this path, which Nginx writes to; map it in "+
			"the rules under paths", name, key+value)
	}
}

// directory is a directory of temporary files or of a cache, in production and in the test Nginx.
// from is empty for one that TempDir sets.
type directory struct {
	at       *conf.Directive
	from, to string
}

// caches refuses a directory that the rules put into that of a cache where production does not:
// Nginx does not start with one directory for both, and removes unknown files below a cache's.
func (t *transform) caches() {
	for _, cache := range t.dirs {
		if !strings.HasSuffix(cache.at.Name(), "_cache_path") {
			continue
		}
		for _, d := range t.dirs {
			if d.at == cache.at && d.from == cache.from || !within(d.to, cache.to) ||
				d.from != "" && within(d.from, cache.from) {
				continue
			}
			subject := "tempDir"
			if d.from != "" {
				subject = d.at.Name() + " " + d.from
			}
			t.refuse(d.at, "%s becomes %s, which the cache of %s (%s %s) has: map one of them to "+
				"another directory", subject, d.to, cache.at.Pos(), cache.at.Name(), cache.from)
		}
	}
}

// within reports whether a directory is the other one or below it.
func within(dir, other string) bool {
	dir, other = path.Clean(dir), path.Clean(other)
	return dir == other || strings.HasPrefix(dir, strings.TrimSuffix(other, "/")+"/")
}

// place finds the path of a directive: "1" stands for the first argument, and "state=" for the one
// that begins so, as key. The index is -1 where the directive has no path.
func place(n conf.Node, at string) (i int, key, value string) {
	switch {
	case at == "1" && n.NumArgs() > 0:
		return 0, "", n.Arg(0)
	case strings.HasSuffix(at, "="):
		for i := range n.NumArgs() {
			if value, ok := strings.CutPrefix(n.Arg(i), at); ok {
				return i, at, value
			}
		}
	}
	return -1, "", ""
}

// noPath reports whether the value is a word that stands for no file. In error_log, off is a file
// of that name.
func noPath(name, value string) bool {
	if name == "error_log" {
		return value == "stderr" || strings.HasPrefix(value, "memory:")
	}
	return value == "off" || value == "on" || value == "none"
}

// belowRoots refuses directives that write below a directory that no rule maps: uploads by WebDAV
// below root and alias, and request bodies that are kept in client_body_temp_path.
func (t *transform) belowRoots(http conf.Node) {
	for _, n := range t.below("dav_methods") {
		if n.Arg(0) == "off" || t.accepted(n) {
			continue
		}
		roots := t.rootsAt(n)
		if len(roots) == 0 {
			t.refuse(n.Directive, "dav_methods: it writes below the root, and the tree states "+
				"none; state one and map it in the rules under paths")
		}
		for _, root := range roots {
			if _, ok := t.mapped(root.Arg(0)); !ok {
				t.refuse(n.Directive, "dav_methods: it writes below %s %s of %s, which nothing "+
					"maps; map it in the rules under paths",
					root.Name(), root.Arg(0), root.Pos())
			}
		}
	}
	for _, n := range t.below("client_body_in_file_only") {
		if n.Arg(0) != "on" || t.rules.TempDir != "" || t.accepted(n) {
			continue
		}
		if set, _ := t.effective(n, "client_body_temp_path"); len(set) == 0 {
			t.refuse(n.Directive, "client_body_in_file_only on: it keeps the bodies in the "+
				"directory that Nginx was built with; set tempDir in the rules")
		}
	}
}

// rootsAt are the directives that say which directories the block of n serves: those in effect
// there, and those further in.
func (t *transform) rootsAt(n conf.Node) (roots []conf.Node) {
	for _, name := range []string{"alias", "root"} {
		if len(roots) == 0 {
			roots, _ = t.effective(n, name)
		}
	}
	block := n.Parent()
	for _, name := range []string{"alias", "root"} {
		for _, r := range t.below(name) {
			if r.Parent() != block && slices.Contains(r.Parents, block) {
				roots = append(roots, r)
			}
		}
	}
	return roots
}

func (t *transform) accepted(n conf.Node) bool {
	if !slices.Contains(t.rules.Accept, n.Name()) {
		return false
	}
	t.changed(n.Directive, "accept", "%s is kept as it is: the rules accept it", n.Name())
	return true
}

// include makes an include point into the new tree where its own path does not.
func (t *transform) include(n conf.Node) {
	to, err := t.tree.IncludeName(n.Directive)
	dir := path.Dir(t.tree.Main.Name)
	if err != nil || path.Join(dir, n.Arg(0)) == to && !path.IsAbs(n.Arg(0)) {
		return // one with an error ended the reading
	}
	if dir != "." {
		to = strings.Repeat("../", strings.Count(dir, "/")+1) + to
	}
	t.edit.ReplaceArg(n.Directive, 0, to)
	t.changed(n.Directive, "paths", "the include points into the transformed tree")
}

// mapped is the value with its beginning replaced by the longest entry of Rules.Paths that matches.
func (t *transform) mapped(value string) (string, bool) {
	best := ""
	for from := range t.rules.Paths {
		if strings.HasPrefix(value, from) && len(from) > len(best) {
			best = from
		}
	}
	if best == "" {
		return value, false
	}
	to := t.rules.Paths[best]
	if to == "off" {
		return to, true
	}
	return to + value[len(best):], true
}

// variables defines $sluice_vip, the VIP of the request, and the variables that AllowClients needs.
func (t *transform) variables() string {
	var b strings.Builder
	peer := "$remote_addr"
	if len(t.below("set_real_ip_from")) > 0 {
		peer = "$realip_remote_addr" // $remote_addr is what the peer claims
	}
	geo := func(variable string, networks []netip.Prefix) {
		b.WriteString("geo " + peer + " " + variable + " {\n    default 0;\n")
		for _, p := range networks {
			b.WriteString("    " + p.Masked().String() + " 1;\n")
		}
		b.WriteString("}\n")
	}
	if len(t.rules.AllowClients) > 0 {
		networks := t.rules.AllowClients
		b.WriteString("# Who may use this Nginx at all.\n")
		geo("$sluice_client", networks)
	}
	b.WriteString("# The VIP of a request is the address that it came to")
	if t.rules.chosen() {
		b.WriteString(", unless the driver finds another one named")
	}
	b.WriteString(".\n")
	trusting := len(t.rules.TrustVIPHeader) > 0
	if trusting {
		geo("$sluice_peer", t.rules.TrustVIPHeader)
	}
	if !trusting || t.rules.chosen() {
		b.WriteString("map $server_addr $sluice_vip {\n    default $server_addr;\n}\n")
	} else {
		// No regular expression: its match would take the captures of the request away.
		b.WriteString("# A trusted peer may name another one, to come back to the VIP of its own " +
			"caller.\n" +
			"map $http_x_env_vip $sluice_named {\n    \"\" $server_addr;\n    default " +
			"$http_x_env_vip;\n}\n" +
			"map $sluice_peer $sluice_vip {\n    default $server_addr;\n    1 $sluice_named;\n}\n")
	}
	b.WriteString("# The driver sets these.\nmap \"\" $sluice_token {\n    default " +
		"$sluice_vip;\n}\n")
	names := []string{"version", "reason", "fleeting", "text"}
	if t.rules.Selector != (Selector{}) {
		names = append(names, "vary")
	}
	if trusting && t.rules.chosen() {
		names = append(names, "baggage")
	}
	for _, name := range names {
		b.WriteString("map \"\" $sluice_" + name + " {\n    default \"\";\n}\n")
	}
	return b.String()
}
