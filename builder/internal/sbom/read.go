package sbom

import (
	"archive/zip"
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// maxJarEntry bounds one file in a jar that is read, in bytes.
const maxJarEntry = 1 << 20

// Read returns the packages that a file names. distribution is the ID of the image's os-release. A
// program without build information of Go has none.
func Read(file, distribution string, content io.ReaderAt, size int64) ([]Package, error) {
	read := readerOf(file)
	if read == nil {
		read = goProgram
	}
	found, err := read(io.NewSectionReader(content, 0, size))
	if err != nil {
		return nil, fmt.Errorf("/%s: %w", file, err)
	}
	for i := range found {
		found[i].Path = file
		switch found[i].Type {
		case "deb", "apk", "rpm":
			found[i].Namespace = distribution
		}
	}
	return found, nil
}

type reader func(r *io.SectionReader) ([]Package, error)

// readerOf returns the reader for a file by its name, nil for none.
func readerOf(file string) reader {
	dir, base := path.Split(file)
	switch {
	case file == "var/lib/dpkg/status",
		dir == "var/lib/dpkg/status.d/" && path.Ext(base) != ".md5sums":
		return dpkg
	case file == "lib/apk/db/installed", file == "usr/lib/apk/db/installed":
		return apk
	case base == "rpmdb.sqlite" && slices.Contains(rpmDirs, dir):
		return rpmSQLite
	case base == "Packages.db" && slices.Contains(rpmDirs, dir):
		return rpmNDB
	case base == "package-lock.json":
		return npmLock
	case base == "package.json" && strings.Contains("/"+dir, "/node_modules/"):
		return npmPackage
	case base == "METADATA" && strings.HasSuffix(dir, ".dist-info/"),
		base == "PKG-INFO" && strings.HasSuffix(dir, ".egg-info/"),
		strings.HasSuffix(base, ".egg-info"):
		return python
	case path.Ext(base) == ".jar":
		return jar
	case base == "installed.json" && strings.HasSuffix(dir, "vendor/composer/"):
		return composer
	case strings.HasSuffix(base, ".deps.json"):
		return dotnet
	}
	return nil
}

// text reads the whole file.
func text(r *io.SectionReader) (string, error) {
	all, err := io.ReadAll(r)
	return string(all), err
}

// fields are the first lines of the fields of a stanza "Name: value".
func fields(stanza string) map[string]string {
	found := map[string]string{}
	for line := range strings.Lines(stanza) {
		name, value, ok := strings.Cut(line, ":")
		if _, seen := found[name]; ok && !seen && !strings.HasPrefix(line, " ") {
			found[name] = strings.TrimSpace(value)
		}
	}
	return found
}

// dpkg reads deb-control(5) stanzas. The status file says which packages are installed; the files
// of distroless images do not.
func dpkg(r *io.SectionReader) (found []Package, err error) {
	all, err := text(r)
	for stanza := range strings.SplitSeq(all, "\n\n") {
		f := fields(stanza)
		if status, ok := f["Status"]; f["Package"] == "" || ok &&
			!strings.HasSuffix(status, " installed") {
			continue
		}
		found = append(found, Package{Type: "deb", Name: f["Package"], Version: f["Version"],
			Arch: f["Architecture"]})
	}
	return found, err
}

// apk reads the database of apk, whose fields are single letters.
func apk(r *io.SectionReader) (found []Package, err error) {
	all, err := text(r)
	for stanza := range strings.SplitSeq(all, "\n\n") {
		f := fields(stanza)
		if f["P"] != "" {
			found = append(found, Package{Type: "apk", Name: f["P"], Version: f["V"],
				Arch: f["A"], License: f["L"]})
		}
	}
	return found, err
}

// npmLock reads the packages of a lock file of version 2 or 3 that are installed in production.
func npmLock(r *io.SectionReader) (found []Package, err error) {
	var lock struct {
		Packages map[string]struct {
			Version string
			License json.RawMessage
			Dev     bool
			Link    bool
		}
	}
	if err := json.NewDecoder(r).Decode(&lock); err != nil {
		return nil, err
	}
	for at, p := range lock.Packages {
		_, name, ok := cutLast(at, "node_modules/")
		if ok && !p.Dev && !p.Link {
			found = append(found, npm(name, p.Version, p.License))
		}
	}
	return found, nil
}

func npmPackage(r *io.SectionReader) ([]Package, error) {
	var p struct {
		Name, Version string
		License       json.RawMessage
	}
	if err := json.NewDecoder(r).Decode(&p); err != nil || p.Name == "" || p.Version == "" {
		return nil, nil // a file of a package's own, for its tests
	}
	return []Package{npm(p.Name, p.Version, p.License)}, nil
}

func npm(name, version string, license json.RawMessage) Package {
	p := Package{Type: "npm", Name: name, Version: version}
	if json.Unmarshal(license, &p.License) != nil {
		p.License = "" // an object, as of old packages
	}
	return p
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// python reads the core metadata of a distribution (packaging.python.org).
func python(r *io.SectionReader) ([]Package, error) {
	all, err := text(r)
	if err != nil {
		return nil, err
	}
	head, _, _ := strings.Cut(all, "\n\n")
	f := fields(head)
	if f["Name"] == "" {
		return nil, nil
	}
	return []Package{{Type: "pypi", Version: f["Version"],
		Name:    strings.ReplaceAll(strings.ToLower(f["Name"]), "_", "-"),
		License: f["License-Expression"]}}, nil
}

// jar reads the file that Maven leaves in an archive:
// META-INF/maven/GROUP/ARTIFACT/pom.properties. A jar of jars, as Spring Boot packs it, has one for
// each library in it that was packed so.
func jar(r *io.SectionReader) (found []Package, err error) {
	archive, err := zip.NewReader(r, r.Size())
	if err != nil {
		return nil, nil // cut off, or encrypted: no package is named
	}
	for _, f := range archive.File {
		switch {
		case path.Base(f.Name) == "pom.properties" && f.UncompressedSize64 <= maxJarEntry:
			content, err := unzip(f, maxJarEntry)
			if err != nil {
				return nil, err
			}
			if p := properties(content); p["artifactId"] != "" {
				found = append(found, Package{Type: "maven", Namespace: p["groupId"],
					Name: p["artifactId"], Version: p["version"]})
			}
		case path.Ext(f.Name) == ".jar" && f.UncompressedSize64 <= maxInnerJar:
			content, err := unzip(f, maxInnerJar)
			if err != nil {
				return nil, err
			}
			inner, err := jar(io.NewSectionReader(bytes.NewReader(content), 0,
				int64(len(content))))
			if err != nil {
				return nil, err
			}
			found = append(found, inner...)
		}
	}
	return found, nil
}

// maxInnerJar bounds a jar in a jar, in bytes.
const maxInnerJar = 64 << 20

func unzip(f *zip.File, limit int64) ([]byte, error) {
	r, err := f.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(io.LimitReader(r, limit))
}

func properties(content []byte) map[string]string {
	found := map[string]string{}
	for line := range strings.Lines(string(content)) {
		if name, value, ok := strings.Cut(line, "="); ok {
			found[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	return found
}

// goProgram reads the modules that a Go program was built of.
func goProgram(r *io.SectionReader) (found []Package, err error) {
	magic := make([]byte, 4)
	if _, err := r.ReadAt(magic, 0); err != nil || string(magic) != "\x7fELF" {
		return nil, nil
	}
	info, err := buildinfo.Read(r)
	if err != nil {
		return nil, nil // of another language
	}
	found = append(found, Package{Type: "golang", Name: "stdlib",
		Version: strings.TrimPrefix(info.GoVersion, "go")})
	modules := info.Deps
	if info.Main.Path != "" {
		modules = append(modules, &info.Main)
	}
	for _, m := range modules {
		if m.Replace != nil {
			m = m.Replace
		}
		version := m.Version
		if version == "(devel)" {
			version = ""
		}
		found = append(found, Package{Type: "golang", Name: m.Path, Version: version})
	}
	return found, nil
}

func composer(r *io.SectionReader) (found []Package, err error) {
	var installed struct {
		Packages []struct {
			Name, Version string
			License       []string
		}
	}
	if err := json.NewDecoder(r).Decode(&installed); err != nil {
		return nil, err
	}
	for _, p := range installed.Packages {
		found = append(found, Package{Type: "composer", Name: p.Name, Version: p.Version,
			License: strings.Join(p.License, " OR ")})
	}
	return found, nil
}

// dotnet reads the libraries of a file that dotnet publish writes.
func dotnet(r *io.SectionReader) (found []Package, err error) {
	var deps struct {
		Libraries map[string]struct{ Type string }
	}
	if err := json.NewDecoder(r).Decode(&deps); err != nil {
		return nil, err
	}
	for id, l := range deps.Libraries {
		name, version, _ := strings.Cut(id, "/")
		if l.Type == "package" {
			found = append(found, Package{Type: "nuget", Name: name, Version: version})
		}
	}
	return found, nil
}
