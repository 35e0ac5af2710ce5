// Package debian unpacks the Nginx of other releases of Debian than the machine's, each into a
// root directory of its own in the user's cache directory.
//
// The packages come from the mirror that the machine's own apt sources name, with the release's
// name in the place of the machine's; apt checks them against Debian's signatures. Nothing is
// installed: the machine's own packages stay as they are. A program of a root runs with the
// libraries of its root, on the machine's files.
package debian

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Release is one release of Debian.
type Release struct {
	Suite string // its name in apt sources, such as "trixie"
	Title string // its name in a sentence, such as "Debian 13"
}

// Releases are the releases whose Nginx the tests run on, beside the machine's own.
var Releases = []Release{
	{"bookworm", "Debian 12"}, {"trixie", "Debian 13"}, {"sid", "Debian unstable"},
}

// Others are the releases without the machine's own.
func Others() []Release {
	own := osRelease("VERSION_CODENAME")
	var found []Release
	for _, r := range Releases {
		if osRelease("ID") != "debian" || r.Suite != own {
			found = append(found, r)
		}
	}
	return found
}

// Root is a directory with the unpacked packages of a release.
type Root struct {
	Dir     string    `json:"dir"`   // absolute path
	Nginx   string    `json:"nginx"` // version of Nginx, such as "1.26.3"
	Lua     string    `json:"lua"`   // version of its Lua module, such as "0.10.28"
	Fetched time.Time `json:"fetched"`
}

// String names the versions.
func (r Root) String() string { return fmt.Sprintf("Nginx %s with Lua %s", r.Nginx, r.Lua) }

// Path is the path of a file of the root, given as on a machine of the release.
func (r Root) Path(name string) string { return filepath.Join(r.Dir, name) }

// ErrMissing is the error of Cached for a release that Fetch has not unpacked.
var ErrMissing = errors.New("not fetched")

// Cached returns the root that Fetch has made, of any day. Without one the error is that of the
// last Fetch, or ErrMissing with the command that fetches the release.
func (r Release) Cached() (Root, error) {
	dir, err := r.dir()
	if err != nil {
		return Root{}, err
	}
	text, err := os.ReadFile(filepath.Join(dir, record))
	if errors.Is(err, fs.ErrNotExist) {
		if reason, err := os.ReadFile(filepath.Join(dir, failure)); err == nil {
			return Root{}, fmt.Errorf("%s: Nginx could not be fetched: %s", r.Title, reason)
		}
		return Root{}, fmt.Errorf("%s: Nginx %w: run: make tools TOOLS=nginx", r.Title,
			ErrMissing)
	}
	if err != nil {
		return Root{}, err
	}
	var root Root
	if err := json.Unmarshal(text, &root); err != nil {
		return Root{}, fmt.Errorf("%s: %w", filepath.Join(dir, record), err)
	}
	return root, nil
}

// The files of a release's directory beside its roots.
const (
	record  = "root.json" // the Root that is used
	failure = "failure"   // why the last Fetch failed
	apt     = "apt"       // apt's lists
)

// dir is the directory of the release.
func (r Release) dir() (string, error) {
	cache, err := Cache()
	return filepath.Join(cache, r.Suite), err
}

// Cache is the directory of all releases.
func Cache() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("debian: %w: set HOME or XDG_CACHE_HOME", err)
	}
	return filepath.Join(dir, "sluice", "nginx"), nil
}

// osRelease is a value of os-release(5), empty where it has none.
func osRelease(key string) string {
	text, _ := os.ReadFile("/etc/os-release")
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
			return strings.Trim(value, `"`)
		}
	}
	return ""
}
