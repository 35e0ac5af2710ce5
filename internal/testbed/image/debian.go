//go:build linux

package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/sluice-deploy/sluice/internal/testbed"
)

// DebianSpec describes an image of Debian packages of this machine.
type DebianSpec struct {
	// Programs of the image, each NAME=PACKAGE or PATH=PACKAGE: the package that owns the program
	// on this machine is in the image with its dependencies. PACKAGE is the package to install
	// where the program is missing. A program whose file is elsewhere has a link in /usr/bin.
	Programs []string
	// Links are symbolic links of the image, and their targets.
	Links map[string]string
	// Files are files of the image, with their content. A name that ends in "/" is a directory that
	// the owner may write.
	Files map[string]string
	// Owner is the user and group id of Files. The default is root.
	Owner int
	// Leave are files of packages that the image does not have.
	Leave []string
	// Trees are directories of this machine, by their path in the image, without a slash.
	Trees map[string]string
	// Env are variables of the image's configuration, each NAME=VALUE.
	Env []string
}

// Debian pushes an image to a registry, given as host:port, and returns its name with the digest.
// It has the status file of dpkg with the packages that are in it.
func Debian(t testing.TB, registry, name string, s DebianSpec) string {
	t.Helper()
	img, err := debianImage(t, s)
	if err != nil {
		t.Fatal(err)
	}
	return pushImage(t, registry+"/testbed/"+name+":1", img)
}

func debianImage(t testing.TB, s DebianSpec) (v1.Image, error) {
	t.Helper()
	d, err := installed()
	if err != nil {
		return nil, err
	}
	l := debianLayer{spec: s, dpkg: d, links: maps.Clone(s.Links), files: map[string]fs.FileInfo{}}
	if l.links == nil {
		l.links = map[string]string{}
	}
	packages := []string{"base-files", "dash", "coreutils"}
	for _, p := range s.Programs {
		name, pkg, _ := strings.Cut(p, "=")
		path, err := filepath.EvalSymlinks(testbed.NeedProgram(t, name, pkg))
		if err != nil {
			return nil, err
		}
		owner := d.owner[path]
		if owner == "" {
			return nil, fmt.Errorf("%s: no Debian package has the file: install %s", path, pkg)
		}
		packages = append(packages, owner)
		if at := "usr/bin/" + filepath.Base(name); "/"+at != path &&
			filepath.Dir(path) != "/usr/sbin" {
			l.links[at] = path
		}
	}
	l.packages = d.closure(packages)
	if err := l.collect(); err != nil {
		return nil, err
	}
	img, err := withLayer(t, l.write)
	if err != nil {
		return nil, err
	}
	return configured(img, func(c *v1.Config) {
		c.Env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:" +
			"/bin:/usr/local/go/bin"}, s.Env...)
	})
}

// dpkg has the installed packages of this machine.
type dpkg struct {
	stanza map[string]string     // of the status file, by package
	needs  map[string][][]string // alternatives of each dependency
	gives  map[string][]string   // packages that provide a name
	files  map[string][]string
	owner  map[string]string // package of a file
}

const dpkgDir = "/var/lib/dpkg"

var installed = sync.OnceValues(readDpkg)

// readDpkg reads the status file and the lists of files: deb-control(5), dpkg(1).
func readDpkg() (*dpkg, error) {
	text, err := os.ReadFile(dpkgDir + "/status")
	if err != nil {
		return nil, err
	}
	d := &dpkg{map[string]string{}, map[string][][]string{}, map[string][]string{},
		map[string][]string{}, map[string]string{}}
	for stanza := range strings.SplitSeq(string(text), "\n\n") {
		name := control(stanza, "Package")
		if name == "" || !strings.HasSuffix(control(stanza, "Status"), " installed") {
			continue
		}
		d.stanza[name] = strings.TrimSpace(stanza) + "\n"
		for _, field := range []string{"Pre-Depends", "Depends"} {
			for need := range strings.SplitSeq(control(stanza, field), ",") {
				d.needs[name] = append(d.needs[name], packageNames(need, "|"))
			}
		}
		for _, given := range append(packageNames(control(stanza, "Provides"), ","), name) {
			d.gives[given] = append(d.gives[given], name)
		}
		list, err := os.ReadFile(dpkgDir + "/info/" + name + ".list")
		if errors.Is(err, fs.ErrNotExist) {
			list, err = os.ReadFile(dpkgDir + "/info/" + name + ":" +
				control(stanza, "Architecture") + ".list")
		}
		if err != nil {
			return nil, err
		}
		d.files[name] = strings.Fields(string(list))
		for _, file := range d.files[name] {
			d.owner[merged(file)] = name
		}
	}
	return d, nil
}

// control is the first line of a field of a control file.
func control(stanza, field string) string {
	for line := range strings.Lines(stanza) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// packageNames are the names in a field, without versions and architectures.
func packageNames(text, separator string) (found []string) {
	for part := range strings.SplitSeq(text, separator) {
		name, _, _ := strings.Cut(strings.TrimSpace(part), " ")
		name, _, _ = strings.Cut(name, "(")
		if name, _, _ = strings.Cut(name, ":"); name != "" {
			found = append(found, name)
		}
	}
	return found
}

// closure are the packages and their dependencies, as far as they are installed.
func (d *dpkg) closure(packages []string) []string {
	seen := map[string]bool{}
	for len(packages) > 0 {
		name := packages[0]
		packages = packages[1:]
		if seen[name] || d.stanza[name] == "" {
			continue
		}
		seen[name] = true
		for _, alternatives := range d.needs[name] {
			for _, a := range alternatives {
				if given := d.gives[a]; len(given) > 0 {
					if d.stanza[a] == "" {
						a = given[0]
					}
					packages = append(packages, a)
					break
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// merged is the path of a package's file where /bin, /sbin and /lib* are links into /usr.
func merged(file string) string {
	for _, dir := range []string{"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"} {
		if file == dir || strings.HasPrefix(file, dir+"/") {
			return "/usr" + file
		}
	}
	return file
}

// unread are the directories of packages that no service reads.
var unread = []string{"/usr/share/doc/", "/usr/share/man/", "/usr/share/locale/",
	"/usr/share/info/", "/usr/share/lintian/", "/usr/include/", "/usr/share/icons/"}

// debianLayer is the layer of an image of packages.
type debianLayer struct {
	spec     DebianSpec
	dpkg     *dpkg
	packages []string
	files    map[string]fs.FileInfo // by absolute path
	links    map[string]string      // by path without the slash
}

// collect looks up the files of the packages on this machine.
func (l *debianLayer) collect() error {
	for _, p := range l.packages {
		for _, file := range l.dpkg.files[p] {
			file = merged(file)
			if file == "/." || slices.Contains(l.spec.Leave, file) ||
				slices.ContainsFunc(unread, func(dir string) bool {
					return strings.HasPrefix(file+"/", dir)
				}) {
				continue
			}
			info, err := os.Lstat(file)
			if errors.Is(err, fs.ErrNotExist) {
				continue // an image of this machine may leave documentation out
			}
			if err != nil {
				return err
			}
			l.files[file] = info
		}
	}
	for name, to := range map[string]string{"bin": "usr/bin", "sbin": "usr/sbin",
		"lib": "usr/lib", "lib64": "usr/lib64", "var/run": "../run", "usr/bin/sh": "dash"} {
		l.links[name] = to
	}
	return nil
}

// passwd and group have the users of Debian's base and one of a service.
const (
	passwd = "root:x:0:0:root:/root:/bin/sh\n" +
		"www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\n" +
		"work:x:1000:1000::/home/work:/bin/sh\n" +
		"nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
	group = "root:x:0:\nwww-data:x:33:\nwork:x:1000:\nnogroup:x:65534:\n"
)

func (l *debianLayer) write(w io.Writer) error {
	tw := tar.NewWriter(w)
	written := map[string]bool{}
	if err := l.writeSpec(tw, written); err != nil {
		return err
	}
	for _, file := range sorted(l.files) {
		name := strings.TrimPrefix(file, "/")
		if written[name] {
			continue
		}
		if err := writeFile(tw, name, file, l.files[file]); err != nil {
			return err
		}
	}
	for _, to := range sorted(l.spec.Trees) {
		if err := writeTree(tw, to, l.spec.Trees[to]); err != nil {
			return err
		}
	}
	return tw.Close()
}

// writeSpec writes the entries that no package brings.
func (l *debianLayer) writeSpec(tw *tar.Writer, written map[string]bool) error {
	put := func(h *tar.Header, content string) error {
		written[strings.TrimSuffix(h.Name, "/")] = true
		h.Size = int64(len(content))
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		_, err := io.WriteString(tw, content)
		return err
	}
	var status strings.Builder
	for _, p := range l.packages {
		status.WriteString(l.dpkg.stanza[p] + "\n")
	}
	files := map[string]string{"etc/passwd": passwd, "etc/group": group,
		"var/lib/dpkg/status": status.String()}
	dirs := map[string]int64{"tmp": 0o1777, "var/tmp": 0o1777, "root": 0o700, "proc": 0o555,
		"sys": 0o555, "dev": 0o755, "run": 0o755, "etc": 0o755, "home/work": 0o755}
	for _, dir := range sorted(dirs) {
		err := put(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: dirs[dir]}, "")
		if err != nil {
			return err
		}
	}
	for _, name := range sorted(l.links) {
		err := put(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: l.links[name],
			Mode: 0o777}, "")
		if err != nil {
			return err
		}
	}
	for _, name := range sorted(files) {
		err := put(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, files[name])
		if err != nil {
			return err
		}
	}
	for _, name := range sorted(l.spec.Files) {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Uid: l.spec.Owner,
			Gid: l.spec.Owner}
		if strings.HasSuffix(name, "/") {
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		}
		if strings.HasPrefix(l.spec.Files[name], "#!") {
			h.Mode = 0o755
		}
		if err := put(h, l.spec.Files[name]); err != nil {
			return err
		}
	}
	return nil
}

// writeTree writes a directory of this machine, without tests.
func writeTree(tw *tar.Writer, to, from string) error {
	return filepath.WalkDir(from, func(file string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && e.Name() == "testdata" {
			return fs.SkipDir
		}
		info, err := e.Info()
		if err != nil || strings.HasSuffix(file, "_test.go") {
			return err
		}
		return writeFile(tw, to+strings.TrimPrefix(file, from), file, info)
	})
}

// writeFile writes a file of this machine, with its mode and owner.
func writeFile(tw *tar.Writer, name, file string, info fs.FileInfo) error {
	var link string
	var err error
	switch info.Mode().Type() {
	case fs.ModeSymlink:
		if link, err = os.Readlink(file); err != nil {
			return err
		}
	case 0, fs.ModeDir:
	default:
		return nil
	}
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	h.Name, h.Uname, h.Gname = name, "", ""
	if info.IsDir() {
		h.Name += "/"
	}
	if err := tw.WriteHeader(h); err != nil || h.Typeflag != tar.TypeReg {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(tw, f)
	return err
}
