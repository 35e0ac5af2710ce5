// Package sbom finds the packages of an image in its files, and describes them in an SPDX document.
//
// It reads the databases of dpkg, apk and rpm (SQLite and ndb, not Berkeley DB), and the files that
// applications carry: lock files and packages of npm, Python's distributions, the jars of Maven,
// the build information of Go programs, composer's list, and the dependencies of .NET assemblies.
package sbom

import (
	"cmp"
	"net/url"
	"path"
	"slices"
	"strings"
)

// Package is one package in an image.
type Package struct {
	Name, Version string
	// Type is that of a package URL (github.com/package-url/purl-spec): deb, apk, rpm, npm, pypi,
	// maven, golang, composer or nuget.
	Type string
	// Namespace is that of a package URL: the distribution, the group of Maven; "" for none.
	Namespace string
	// Arch is the architecture that a distribution's package is for; "" for none.
	Arch string
	// Epoch comes before the version of an rpm package; "" for none.
	Epoch string
	// License is an SPDX licence expression as the package says it; "" for none.
	License string
	// Path of the file that names the package, without a leading slash.
	Path string
}

// PURL returns the package URL.
func (p Package) PURL() string {
	var b strings.Builder
	b.WriteString("pkg:" + p.Type + "/")
	for part := range strings.SplitSeq(p.Namespace, "/") {
		if part != "" {
			b.WriteString(escape(part) + "/")
		}
	}
	for i, part := range strings.Split(p.Name, "/") {
		if i > 0 {
			b.WriteByte('/')
		}
		b.WriteString(escape(part))
	}
	if p.Version != "" {
		b.WriteString("@" + escape(p.Version))
	}
	sign := "?"
	for _, q := range [][2]string{{"arch", p.Arch}, {"epoch", p.Epoch}} {
		if q[1] != "" {
			b.WriteString(sign + q[0] + "=" + escape(q[1]))
			sign = "&"
		}
	}
	return b.String()
}

// escape leaves letters, digits, "-", ".", "_", "~" and ":" as they are, as the specification says.
func escape(s string) string {
	return strings.NewReplacer("+", "%20", "%3A", ":").Replace(url.QueryEscape(s))
}

// rpmDirs are where rpm has its database: the second is Fedora's and SUSE's, the third that of
// images that ostree makes.
var rpmDirs = []string{"var/lib/rpm/", "usr/lib/sysimage/rpm/", "usr/share/rpm/"}

// Unread reports whether a file, if it is not empty, has packages that this package does not read:
// rpm's database in Berkeley DB, up to RHEL 8, and a log that the database has not taken in.
func Unread(file string) bool {
	dir, base := path.Split(file)
	return slices.Contains(rpmDirs, dir) && (base == "Packages" || base == "rpmdb.sqlite-wal")
}

// Wanted reports whether Read may find packages in a file with the name, a path without a leading
// slash.
func Wanted(file string, executable bool) bool {
	return executable && path.Ext(file) == "" || readerOf(file) != nil
}

// OSRelease is the file that names the distribution; see Distribution.
const OSRelease = "etc/os-release"

// Distribution returns the ID of an os-release(5) file, "" without one.
func Distribution(osRelease []byte) string {
	for line := range strings.Lines(string(osRelease)) {
		if id, ok := strings.CutPrefix(strings.TrimSpace(line), "ID="); ok {
			return strings.Trim(id, `"'`)
		}
	}
	return ""
}

// Sort returns the packages by type, name, version and path, each once.
func Sort(packages []Package) []Package {
	all := slices.Clone(packages)
	slices.SortFunc(all, func(a, b Package) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Namespace, b.Namespace),
			cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version),
			cmp.Compare(a.Arch, b.Arch), cmp.Compare(a.Path, b.Path))
	})
	return slices.CompactFunc(all, func(a, b Package) bool { return a.PURL() == b.PURL() })
}
