//go:build linux

package debian

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// packages are those of a root; their dependencies come with them.
var packages = []string{"nginx", "libnginx-mod-http-lua", "libnginx-mod-stream",
	"libnginx-mod-mail", "libnginx-mod-http-cache-purge", "libnginx-mod-http-memc",
	"libnginx-mod-http-srcache-filter", "curl"}

// unpacked finds the packages that programs of a root use among all that an installation would
// bring: the others set a machine up.
var unpacked = regexp.MustCompile(`^(nginx|lib|lua-|zlib|curl)`)

// programs are those of a root that get its libraries.
var programs = []string{"usr/sbin/nginx", "usr/bin/curl"}

// debs is the directory of downloaded packages, below that of apt.
const debs = "debs"

// fresh is how long a root serves before Fetch asks the mirror for a newer one.
const fresh = 24 * time.Hour

// Fetch returns the root of the release, made by now or by an earlier call within a day. Where the
// mirror cannot be asked, or has no set of packages that fit together, it returns the root of an
// earlier day with the error; without one, the error alone, which Cached repeats. Calls of several
// processes follow each other.
func (r Release) Fetch(ctx context.Context) (Root, error) {
	dir, err := r.dir()
	if err != nil {
		return Root{}, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Root{}, err
	}
	unlock, err := lock(ctx, filepath.Join(dir, "lock"))
	if err != nil {
		return Root{}, err
	}
	defer unlock()
	before, beforeErr := r.Cached()
	if beforeErr == nil && time.Since(before.Fetched) < fresh {
		return before, nil
	}
	root, err := r.fetch(ctx, dir)
	if err == nil {
		err = save(dir, root)
	}
	if err != nil {
		text := strings.Join(strings.Fields(err.Error()), " ")
		return before, errors.Join(err, os.WriteFile(filepath.Join(dir, failure), []byte(text),
			0o644))
	}
	if beforeErr == nil && before.Dir != root.Dir {
		err = os.RemoveAll(before.Dir)
	}
	return root, err
}

// lock waits until no other process fetches the release.
func lock(ctx context.Context, name string) (unlock func(), err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil // which unlocks
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// save makes the root the one that Cached returns.
func save(dir string, root Root) error {
	text, err := json.Marshal(root)
	if err != nil {
		return err
	}
	name := filepath.Join(dir, record)
	if err := os.WriteFile(name+".new", text, 0o644); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(dir, failure)); err != nil && !errors.Is(err,
		fs.ErrNotExist) {
		return err
	}
	return os.Rename(name+".new", name)
}

// fetch asks the mirror, and unpacks a root that is not there.
func (r Release) fetch(ctx context.Context, dir string) (Root, error) {
	own, err := mirror("/etc/apt", osRelease("ID"), osRelease("VERSION_CODENAME"))
	if err != nil {
		return Root{}, err
	}
	state := filepath.Join(dir, apt)
	for _, d := range []string{"lists/partial", "archives/partial", debs} {
		if err := os.MkdirAll(filepath.Join(state, d), 0o755); err != nil {
			return Root{}, err
		}
	}
	for name, text := range map[string]string{"sources.list": own.line(r.Suite), "status": ""} {
		if err := os.WriteFile(filepath.Join(state, name), []byte(text), 0o644); err != nil {
			return Root{}, err
		}
	}
	if _, err := aptGet(ctx, state, "update"); err != nil {
		return Root{}, err
	}
	plan, err := aptGet(ctx, state, append([]string{"install", "--simulate",
		"--no-install-recommends"}, packages...)...)
	if err != nil {
		return Root{}, err
	}
	wanted, versions := planned(plan)
	root := Root{Nginx: upstreamOf(versions["nginx"]),
		Lua:     upstreamOf(versions["libnginx-mod-http-lua"]),
		Fetched: time.Now().UTC().Truncate(time.Second)}
	if root.Nginx == "" || root.Lua == "" {
		return Root{}, fmt.Errorf("%s has no Nginx with its Lua module", r.Title)
	}
	sum := sha256.Sum256([]byte(strings.Join(append(slices.Clone(wanted), programs...), "\n")))
	root.Dir = filepath.Join(dir, fmt.Sprintf("%s-%.6x", root.Nginx, sum))
	if _, err := os.Stat(root.Dir); err == nil {
		return root, nil // whole, for its name came last
	}
	return root, unpack(ctx, state, root.Dir, wanted)
}

// aptGet runs apt-get on lists and a state of its own: none of the machine's packages counts.
func aptGet(ctx context.Context, state string, args ...string) ([]byte, error) {
	own := []string{"-q", "-o", "Dir::Etc::sourcelist=" + state + "/sources.list",
		"-o", "Dir::Etc::sourceparts=-", "-o", "Dir::Etc::preferences=/dev/null",
		"-o", "Dir::Etc::preferencesparts=-", "-o", "Dir::State=" + state,
		"-o", "Dir::State::lists=lists", "-o", "Dir::State::status=" + state + "/status",
		"-o", "Dir::Cache=" + state, "-o", "Dir::Cache::archives=archives",
		"-o", "APT::Sandbox::User=root", "-o", "Acquire::Languages=none",
		"-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
		"-o", "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false",
		"-o", "Acquire::Retries=2", "-o", "Acquire::http::Timeout=30",
		"-o", "APT::Update::Error-Mode=any", "-o", "APT::Install-Recommends=false"}
	cmd := exec.CommandContext(ctx, "apt-get", append(own, args...)...)
	cmd.Dir = filepath.Join(state, debs) // where download writes
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var out, bad bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &bad
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		text := bad.Bytes()
		if args[0] == "install" { // which explains itself on its standard output
			text = append(out.Bytes(), text...)
		}
		return nil, fmt.Errorf("apt-get %s: %w: %s", args[0], err, text[max(0, len(text)-800):])
	}
	return out.Bytes(), nil
}

var planLine = regexp.MustCompile(`(?m)^Inst (\S+) \((\S+)`)

// planned reads the packages to unpack, as name=version, out of the output of apt-get's simulation.
func planned(out []byte) (wanted []string, versions map[string]string) {
	versions = map[string]string{}
	for _, m := range planLine.FindAllSubmatch(out, -1) {
		name, version := string(m[1]), string(m[2])
		versions[name] = version
		if unpacked.MatchString(name) {
			wanted = append(wanted, name+"="+version)
		}
	}
	slices.Sort(wanted)
	return wanted, versions
}

// upstreamOf is the upstream part of a version of Debian: deb-version(7).
func upstreamOf(version string) string {
	if _, after, ok := strings.Cut(version, ":"); ok {
		version = after
	}
	if i := strings.LastIndexByte(version, '-'); i >= 0 {
		version = version[:i]
	}
	return version
}

// unpack downloads packages and unpacks them into dir, which is there whole or not at all.
func unpack(ctx context.Context, state, dir string, wanted []string) (err error) {
	staged, debs := dir+".new", filepath.Join(state, debs)
	if err := errors.Join(os.RemoveAll(staged), os.RemoveAll(debs)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(staged), os.RemoveAll(debs)) }()
	if err := errors.Join(os.MkdirAll(staged, 0o755), os.MkdirAll(debs, 0o755)); err != nil {
		return err
	}
	if _, err := aptGet(ctx, state, append([]string{"download"}, wanted...)...); err != nil {
		return err
	}
	found, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil || len(found) != len(wanted) {
		return fmt.Errorf("apt-get downloaded %d of %d packages: %w", len(found), len(wanted), err)
	}
	for _, deb := range found {
		if out, err := exec.CommandContext(ctx, "dpkg-deb", "--extract", deb,
			staged).CombinedOutput(); err != nil {
			return fmt.Errorf("dpkg-deb %s: %w: %s", deb, err, out)
		}
	}
	for _, p := range programs {
		if err := adopt(ctx, staged, dir, p); err != nil {
			return err
		}
	}
	return os.Rename(staged, dir)
}

// adopt makes a program of the root run with the loader and the libraries of the root, which will
// be at dir.
func adopt(ctx context.Context, staged, dir, program string) error {
	f, err := elf.Open(filepath.Join(staged, program))
	if err != nil {
		return err
	}
	defer f.Close()
	section := f.Section(".interp")
	if section == nil {
		return fmt.Errorf("%s has no loader", program)
	}
	data, err := section.Data()
	if err != nil {
		return err
	}
	loader := strings.TrimRight(string(data), "\x00")
	if _, err := os.Stat(filepath.Join(staged, loader)); err != nil {
		loader = "/usr" + loader // /lib64 is a link, of a package that is not unpacked
	}
	var libraries []string
	for _, pattern := range []string{"lib/*-linux-gnu*", "usr/lib/*-linux-gnu*"} {
		found, err := filepath.Glob(filepath.Join(staged, pattern))
		if err != nil {
			return err
		}
		for _, l := range found {
			libraries = append(libraries, dir+strings.TrimPrefix(l, staged))
		}
	}
	// an RPATH, unlike a RUNPATH, counts for the libraries of modules too
	out, err := exec.CommandContext(ctx, "patchelf", "--force-rpath", "--set-rpath",
		strings.Join(libraries, ":"), "--set-interpreter", filepath.Join(dir, loader),
		filepath.Join(staged, program)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("patchelf %s: %w: %s", program, err, out)
	}
	return nil
}
