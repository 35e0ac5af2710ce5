package sbom_test

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-deploy/sluice/builder/internal/sbom"
)

// jarOf makes an archive.
func jarOf(t *testing.T, files map[string]string) string {
	t.Helper()
	var b bytes.Buffer
	zw := zip.NewWriter(&b)
	for name, content := range files {
		w, err := zw.Create(name)
		if err == nil {
			_, err = w.Write([]byte(content))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestRead(t *testing.T) {
	t.Parallel()
	library := jarOf(t, map[string]string{"META-INF/maven/org.example/lib/pom.properties": "#x\n" +
		"groupId=org.example\nartifactId=lib\nversion=1.0\n"})
	for name, c := range map[string]struct {
		file, content string
		want          []string // package URLs
	}{
		"dpkg": {"var/lib/dpkg/status", "Package: a\nStatus: install ok installed\n" +
			"Architecture: all\nVersion: 1:2+b\nDescription: d\n Version: 9\n\nPackage: b\n" +
			"Status: deinstall ok config-files\nVersion: 1\n\n", []string{
			"pkg:deb/debian/a@1:2%2Bb?arch=all"}},
		"distroless": {"var/lib/dpkg/status.d/base", "Package: base\nVersion: 1\n",
			[]string{"pkg:deb/debian/base@1"}},
		"sums of distroless": {"var/lib/dpkg/status.d/base.md5sums", "Package: base\n", nil},
		"apk": {"lib/apk/db/installed", "C:Q1=\nP:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\n\nP:zlib\n" +
			"V:1\n", []string{"pkg:apk/debian/musl@1.2.5-r0?arch=x86_64",
			"pkg:apk/debian/zlib@1"}},
		"npm lock": {"app/package-lock.json", `{"packages": {"": {"version": "0"},
			"node_modules/a": {"version": "1.0.0"}, "node_modules/a/node_modules/@s/b":
			{"version": "2.0.0"}, "lib": {"version": "3"}, "node_modules/lib": {"link": true},
			"node_modules/d": {"version": "1", "dev": true}}}`,
			[]string{"pkg:npm/a@1.0.0", "pkg:npm/%40s/b@2.0.0"}},
		"npm package": {"app/node_modules/a/package.json",
			`{"name": "a", "version": "1.0.0", "license": {"type": "MIT"}}`,
			[]string{"pkg:npm/a@1.0.0"}},
		"a package's own file": {"app/node_modules/a/dist/package.json", `{"type": "module"}`, nil},
		"python": {"usr/lib/python3/dist-packages/My_Lib-1.dist-info/METADATA",
			"Metadata-Version: 2.1\nName: My_Lib\nVersion: 1\nLicense-Expression: MIT\n\n" +
				"Name: other\n", []string{"pkg:pypi/my-lib@1"}},
		"jar": {"app/lib.jar", library, []string{"pkg:maven/org.example/lib@1.0"}},
		"jar of jars": {"app/app.jar", jarOf(t, map[string]string{"BOOT-INF/lib/lib.jar": library}),
			[]string{"pkg:maven/org.example/lib@1.0"}},
		"no jar": {"app/x.jar", "x", nil},
		"composer": {"var/www/vendor/composer/installed.json",
			`{"packages": [{"name": "a/b", "version": "v1", "license": ["MIT"]}]}`,
			[]string{"pkg:composer/a/b@v1"}},
		"dotnet": {"app/Shop.deps.json", `{"libraries": {"Shop/1.0.0": {"type": "project"},
			"Dapper/2.1.0": {"type": "package"}}}`, []string{"pkg:nuget/Dapper@2.1.0"}},
		"a script": {"app/run", "#!/bin/sh\n", nil},
		"empty":    {"app/empty", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			found, err := sbom.Read(c.file, "debian", strings.NewReader(c.content),
				int64(len(c.content)))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range sbom.Sort(found) {
				got = append(got, p.PURL())
				if p.Path != c.file {
					t.Errorf("path is %q", p.Path)
				}
			}
			sorted := cmp.Transformer("set", func(all []string) map[string]int {
				set := map[string]int{}
				for _, s := range all {
					set[s]++
				}
				return set
			})
			if diff := cmp.Diff(c.want, got, sorted); diff != "" {
				t.Errorf("packages (-want +got):\n%s", diff)
			}
		})
	}
	if _, err := sbom.Read("app/package-lock.json", "", strings.NewReader("{"), 1); err == nil ||
		!strings.Contains(err.Error(), "/app/package-lock.json") {
		t.Errorf("a lock file that is cut off: %v", err)
	}
}

// A Go program names its release of Go and its modules: this test binary is one.
func TestReadGoProgram(t *testing.T) {
	t.Parallel()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	found, err := sbom.Read("app/service", "", f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, p := range found {
		all = append(all, p.PURL())
	}
	text := strings.Join(all, "\n")
	const module = "pkg:golang/github.com/sluice-deploy/sluice"
	for _, want := range []string{"pkg:golang/stdlib@1.", module} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

// The document of the same image is the same, and a text that is no SPDX expression is not given as
// a licence.
func TestDescribe(t *testing.T) {
	t.Parallel()
	img := sbom.Image{Name: "registry.example.com/app", Digest: "sha256:ab", Created: time.Unix(0,
		0)}
	packages := []sbom.Package{
		{Type: "npm", Name: "b", Version: "1", License: "(MIT OR Apache-2.0)"},
		{Type: "npm", Name: "a", Version: "1", License: "BSD, see LICENSE"},
		{Type: "npm", Name: "a", Version: "1", License: "MIT", Path: "twice"},
		{Type: "npm", Name: "c", Version: "1", License: "MIT OR"},
	}
	text, err := json.Marshal(sbom.Describe(img, packages))
	if err != nil {
		t.Fatal(err)
	}
	packages[0], packages[1] = packages[1], packages[0]
	again, err := json.Marshal(sbom.Describe(img, packages))
	if err != nil || !bytes.Equal(text, again) {
		t.Errorf("%s\nis not\n%s", again, text)
	}
	var d struct {
		CreationInfo struct{ Created string }
		Packages     []struct{ Name, LicenseDeclared string }
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, p := range d.Packages[1:] {
		got += p.Name + "=" + p.LicenseDeclared + " "
	}
	const want = "a=NOASSERTION b=(MIT OR Apache-2.0) c=NOASSERTION "
	if got != want || d.CreationInfo.Created != "1970-01-01T00:00:00Z" {
		t.Errorf("got %s at %s, want %s", got, d.CreationInfo.Created, want)
	}
}
