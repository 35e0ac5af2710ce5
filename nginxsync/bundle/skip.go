package bundle

import (
	"path"
	"strings"
)

// skipped reports whether a file is of a version control system or an editor's own: hidden swap
// files, locks and the directories of git and its relatives. No include of Nginx reaches them,
// whose patterns pass over names that begin with a dot.
//
// Visible backups such as site.conf~ and site.bak are carried: a production Nginx with "include
// sites-enabled/*" serves them. Package mirror leaves out files that no include brings in.
func skipped(name string) bool {
	for dir := name; dir != "." && dir != "/"; dir = path.Dir(dir) {
		switch path.Base(dir) {
		case ".git", ".svn", ".hg", ".bzr", "CVS":
			return true
		}
	}
	base := path.Base(name)
	swap := strings.HasPrefix(base, ".") && len(base) > 5 && strings.HasPrefix(path.Ext(base),
		".sw")
	return swap && len(path.Ext(base)) == 4 || strings.HasPrefix(base, ".#")
}

// Backup reports whether the name is one that editors and package managers give to a copy of a file
// before a change, such as a.conf~, a.conf.bak, #a.conf# and a.conf.dpkg-old.
func Backup(name string) bool {
	base := path.Base(name)
	switch path.Ext(base) {
	case ".bak", ".orig", ".rej", ".swp", ".swo", ".rpmsave", ".rpmnew", ".rpmorig":
		return true
	}
	return strings.HasSuffix(base, "~") || strings.HasPrefix(base, "#") &&
		strings.HasSuffix(base, "#") ||
		strings.HasPrefix(path.Ext(base), ".dpkg-") || strings.HasPrefix(path.Ext(base), ".ucf-")
}
