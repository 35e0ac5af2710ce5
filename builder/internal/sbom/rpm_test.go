//go:build linux

package sbom_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-deploy/sluice/builder/internal/sbom"
	"github.com/sluice-deploy/sluice/internal/testbed"
)

// TestRPM compares the packages that the reader finds in a database of rpm with the list of rpm.
func TestRPM(t *testing.T) {
	t.Parallel()
	to := t.TempDir()
	installRPMs(t, to, makeRPMs(t, 60))
	check := func() {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(to, sqliteName))
		if err != nil {
			t.Fatal(err)
		}
		var want, got []string
		for line := range strings.Lines(command(t, "rpm", "--dbpath", to, "--query", "--all",
			"--queryformat", `%{NAME}@%{VERSION}-%{RELEASE}?arch=%{ARCH}&epoch=%{EPOCH}\n`)) {
			want = append(want, "pkg:rpm/fedora/"+
				strings.TrimSuffix(strings.TrimSpace(line), "&epoch=(none)"))
		}
		found, err := readRPMs(sqliteName, data)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range found {
			got = append(got, p.PURL())
		}
		slices.Sort(got)
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" || len(want) < 50 {
			t.Errorf("%d packages (-rpm +read):\n%s", len(want), diff)
		}
	}
	check()
	command(t, "rpm", "--dbpath", to, "--erase", "--justdb", "--nodeps", "many-1", "many-7",
		"many-30")
	check()
}

// TestRPMOfSUSE reads headers out of packages that rpmbuild made, in a database that the test
// writes: Debian's rpm is built without ndb.
func TestRPMOfSUSE(t *testing.T) {
	t.Parallel()
	packages := makeRPMs(t, 3)
	found, err := readRPMs(ndbName, writeNDB(t, packages))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range found {
		got = append(got, p.PURL())
	}
	want := []string{"pkg:rpm/fedora/many-0@0-1?arch=noarch&epoch=0",
		"pkg:rpm/fedora/many@1.0-1?arch=noarch", "pkg:rpm/fedora/many-1@1-1?arch=noarch",
		"pkg:rpm/fedora/many-2@2-1?arch=noarch"}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("packages (-want +got):\n%s", diff)
	}
}

// names of rpm's databases.
const (
	sqliteName = "rpmdb.sqlite"
	ndbName    = "Packages.db"
)

func readRPMs(name string, data []byte) ([]sbom.Package, error) {
	return sbom.Read("usr/lib/sysimage/rpm/"+name, "fedora", bytes.NewReader(data),
		int64(len(data)))
}

func installRPMs(t testing.TB, to string, packages []string) {
	t.Helper()
	command(t, testbed.NeedProgram(t, "rpm", "rpm"), append([]string{"--dbpath", to, "--define",
		"_db_backend sqlite", "--install", "--justdb", "--nodeps", "--noscripts", "--nosignature"},
		packages...)...)
}

// writeNDB makes a database with the headers of the packages: one page of slots, a free one among
// them, then a blob for each, in units of 16 bytes.
func writeNDB(t testing.TB, packages []string) []byte {
	t.Helper()
	word := binary.LittleEndian.AppendUint32
	slots := word(word(word([]byte("RpmP"), 0), 1), 1)
	slots = append(slots, make([]byte, 16)...)
	slots = word(word(word(append(slots, "Slot"...), 0), 0), 0)
	var blobs []byte
	for i, file := range packages {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		// the lead, the signature's header at a multiple of 8, and the package's own header
		header := data[96:]
		header = header[(headerSize(header)+7)/8*8:]
		header = header[8:headerSize(header)]
		slots = word(word(word(append(slots, "Slot"...), uint32(i+1)),
			uint32(4096+len(blobs))/16), uint32(len(header)/16+2))
		blobs = word(word(word(append(blobs, "BlbS"...), uint32(i+1)), 1), uint32(len(header)))
		blobs = append(blobs, header...)
		blobs = append(blobs, make([]byte, 16-len(blobs)%16)...)
	}
	for len(slots) < 4096 {
		slots = append(slots, "Slot\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"...)
	}
	return append(slots, blobs...)
}

// headerSize is the size of a header in a package: magic, version, two numbers, entries, data.
func headerSize(header []byte) int {
	return 16 + int(binary.BigEndian.Uint32(header[8:]))*16 +
		int(binary.BigEndian.Uint32(header[12:]))
}

// makeRPMs makes packages of one source, and returns their files. The first has a header that
// does not fit into a page of a database.
func makeRPMs(t testing.TB, count int) []string {
	t.Helper()
	dir := t.TempDir()
	var spec strings.Builder
	fmt.Fprintf(&spec, "Name: many\nVersion: 1.0\nRelease: 1\nSummary: a\nLicense: none\n"+
		"BuildArch: noarch\nAutoReqProv: no\n%%description\n%s\n%%files\n",
		strings.Repeat("A long description.\n", 8000))
	for i := range count {
		fmt.Fprintf(&spec, "%%package %d\nSummary: a\nVersion: %d\n", i, i)
		if i%3 == 0 {
			fmt.Fprintf(&spec, "Epoch: %d\n", i/3)
		}
		fmt.Fprintf(&spec, "%%description %[1]d\n%[2]s\n%%files %[1]d\n", i,
			strings.Repeat("b", i*100))
	}
	file := filepath.Join(dir, "many.spec")
	if err := os.WriteFile(file, []byte(spec.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	command(t, testbed.NeedProgram(t, "rpmbuild", "rpm"), "-bb", "--quiet", "--define",
		"_topdir "+dir, "--define", "_rpmdir "+dir, file)
	found, err := filepath.Glob(dir + "/noarch/*.rpm")
	if err != nil || len(found) != count+1 {
		t.Fatalf("rpmbuild made %q, %v", found, err)
	}
	return found
}

func command(t testing.TB, program string, args ...string) string {
	t.Helper()
	cmd := exec.Command(program, args...)
	var problem strings.Builder
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s", program, err, problem.String())
	}
	return string(out)
}

// rpmDatabases are small databases of both forms, by the name of the file.
func rpmDatabases(t testing.TB) map[string][]byte {
	t.Helper()
	packages, to := makeRPMs(t, 2), t.TempDir()
	installRPMs(t, to, packages)
	data, err := os.ReadFile(filepath.Join(to, sqliteName))
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{sqliteName: data, ndbName: writeNDB(t, packages)}
}

// TestDamagedRPM reads each database with one byte changed, and cut off: no panic, and no package
// that is not there.
func TestDamagedRPM(t *testing.T) {
	t.Parallel()
	for name, data := range rpmDatabases(t) {
		whole, err := readRPMs(name, data)
		if err != nil || len(whole) != 3 {
			t.Fatalf("%s: %v, %v", name, whole, err)
		}
		for at := 0; at < len(data); at += 1 + at/64 {
			damaged := slices.Clone(data)
			damaged[at] ^= 0xff
			for _, damaged := range [][]byte{damaged, data[:at]} {
				if found, err := readRPMs(name, damaged); err == nil && len(found) > len(whole) {
					t.Errorf("%s, %d bytes, byte %d: %v", name, len(damaged), at, found)
				}
			}
		}
		if _, err := readRPMs(name, nil); !errors.Is(err, io.EOF) {
			t.Errorf("%s: an empty file: %v", name, err)
		}
	}
}

func FuzzRPM(f *testing.F) {
	for name, data := range rpmDatabases(f) {
		f.Add(name, data)
		f.Add(name, data[:len(data)/2])
	}
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		found, err := readRPMs(name, data)
		if err == nil && len(found) > len(data) {
			t.Errorf("%d packages in %d bytes", len(found), len(data))
		}
	})
}
