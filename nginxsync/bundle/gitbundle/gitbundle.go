// Package gitbundle is a bundle.Source on a branch or a tag of a git repository.
//
// Purpose: a production tree under version control. New makes a Source that asks the repository for
// the commit of the ref every Every, and takes only that commit, without its history and without
// files larger than the limits, into a repository of its own in Dir. It needs the git program, 2.30
// or newer.
//
// Content: the files of the commit as they are stored. Modes are 0644 or 0755, symbolic links are
// resolved when they stay in Subdir, submodules are refused. No work tree is made, so that no
// filter, attribute, line ending rule or hook of the repository runs; the configuration of the
// machine and of the user, their hooks, credential helpers and environment are not read.
//
// Permissions: to read the repository and to write Dir. Credentials are given with Env, such as
// GIT_SSH_COMMAND or, as GIT_CONFIG_COUNT, GIT_CONFIG_KEY_0 and GIT_CONFIG_VALUE_0, an
// http.extraHeader. Limits: a ref that is gone is an error.
package gitbundle

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync/bundle"
	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check"
	"github.com/sluice-deploy/sluice/nginxsync/internal/tool"
)

// Config configures a Source. Repository, Ref and Dir are required.
type Config struct {
	// Repository is a URL with the scheme https, http, ssh, git or file, or an absolute path.
	Repository string
	// Ref is a branch or a tag: "main", "v1", or in full, "refs/heads/main". A short name that both
	// have is an error.
	Ref string
	// Subdir is the part of the repository that is the production tree. Empty means all of it.
	Subdir string
	// Dir is a directory for the source's own repository, made when it is missing. Nothing else may
	// write there.
	Dir string
	// Every is the time between two looks. The default is 30 seconds.
	Every time.Duration
	// Timeout is how long one look may take. The default is two minutes.
	Timeout time.Duration
	// Env are variables for git, "NAME=value", besides PATH and the variables that isolate git from
	// the machine's configuration.
	Env []string
	// Roots say where the targets of links are in the tree. The default is that it stands for
	// /etc/nginx.
	Roots  conf.Roots
	Limits bundle.Limits
}

// Source is a bundle.Source. It is safe for concurrent use.
type Source struct {
	cfg Config

	mu     sync.Mutex // one look at a time
	object string     // the object that the ref names
	bundle *bundle.Bundle
	taken  int // commits since Dir was made
}

var _ bundle.Source = (*Source)(nil)

// New checks the configuration. The error has all its problems, and bundle.ErrInvalid in its chain.
func New(cfg Config) (*Source, error) {
	p := check.Problems{Package: "gitbundle", Sentinel: bundle.ErrInvalid}
	u, err := url.Parse(cfg.Repository)
	switch {
	case err != nil:
		p.Add("Repository", "want a URL") // it may hold a password
	case path.IsAbs(cfg.Repository), u.Scheme == "https", u.Scheme == "http", u.Scheme == "ssh",
		u.Scheme == "git", u.Scheme == "file":
	default:
		p.Add("Repository", "want https://, http://, ssh://, git://, file:// or an absolute path")
	}
	if strings.ContainsFunc(cfg.Ref, badRune) || cfg.Ref == "" || cfg.Ref[0] == '-' ||
		strings.Contains(cfg.Ref, "..") || strings.Contains(cfg.Ref, "@{") {
		p.Add("Ref", "%q: want the name of a branch or a tag", cfg.Ref)
	}
	if cfg.Subdir != "" && !fs.ValidPath(cfg.Subdir) {
		p.Add("Subdir", "%q: want a relative path that neither . nor .. is part of", cfg.Subdir)
	}
	p.Require("Dir", cfg.Dir != "")
	for _, text := range cfg.Env {
		if name, _, ok := strings.Cut(text, "="); !ok || name == "" {
			p.Add("Env", "want NAME=value") // the value may be a secret
		}
	}
	p.Duration("Every", &cfg.Every, 30*time.Second)
	p.Duration("Timeout", &cfg.Timeout, 2*time.Minute)
	if err := cfg.Roots.Validate(); err != nil {
		p.Add("Roots", "%v", err)
	}
	p.Join("Limits", cfg.Limits.Validate())
	cfg.Limits = cfg.Limits.WithDefaults()
	if err := p.Err(); err != nil {
		return nil, err
	}
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, fmt.Errorf("gitbundle: %w", err)
	}
	return &Source{cfg: cfg}, nil
}

func badRune(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune("~^:?*[\\", r) }

// Fetch implements bundle.Source.
func (s *Source) Fetch(ctx context.Context, after string) (*bundle.Bundle, error) {
	return bundle.Polling{Every: s.cfg.Every}.Fetch(ctx, after, s.look)
}

func (s *Source) look(ctx context.Context) (bundle.View, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, cancel := context.WithTimeoutCause(ctx, s.cfg.Timeout,
		fmt.Errorf("git took longer than %s", s.cfg.Timeout))
	defer cancel()
	ref, object, err := s.remote(ctx)
	if err == nil && (s.bundle == nil || object != s.object) {
		var b *bundle.Bundle
		if b, err = s.take(ctx, ref); err == nil {
			s.object, s.bundle = object, b
		}
	}
	if err != nil {
		return bundle.View{}, fmt.Errorf("gitbundle %s, ref %s: %w", redacted(s.cfg.Repository),
			s.cfg.Ref, err)
	}
	return s.bundle.View(), nil
}

// redacted is the repository without user, password and query.
func redacted(repository string) string {
	if u, err := url.Parse(repository); err == nil && u.Host != "" {
		return u.Scheme + "://" + u.Host + u.Path
	}
	return repository
}

// command is a run of git on the source's own repository. Settings on the command line win over
// those of files; there are no files.
func (s *Source) command(stdin io.Reader, limit int64, protocols string,
	args ...string) tool.Command {
	settings := []string{"--git-dir=" + s.cfg.Dir, "-c", "core.hooksPath=/dev/null", "-c",
		"core.fsmonitor=false", "-c", "gc.auto=0", "-c", "maintenance.auto=false",
		"-c", "credential.helper=", "-c", "core.askPass=", "-c", "fetch.fsckObjects=true", "-c",
		"submodule.recurse=false", "-c", "protocol.version=2"}
	return tool.Command{
		Name: "git", Args: append(settings, args...), Stdin: stdin, Limit: limit,
		Env: append([]string{"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
			"GIT_CONFIG_SYSTEM=/dev/null", "GIT_ATTR_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
			"GIT_OPTIONAL_LOCKS=0", "GIT_SSH_COMMAND=ssh -oBatchMode=yes", "HOME=" + s.cfg.Dir,
			"GIT_ALLOW_PROTOCOL=" + protocols}, s.cfg.Env...),
	}
}

func (s *Source) git(ctx context.Context, stdin io.Reader, limit int64, protocols string,
	args ...string) ([]byte, error) {
	out, err := s.command(stdin, limit, protocols, args...).Output(ctx)
	if err != nil && ctx.Err() == nil && !errors.Is(err, tool.ErrTooLarge) {
		return nil, s.redactError(err)
	}
	return out, err
}

// redactError removes the secrets of the URL, which git repeats, from the error's message.
func (s *Source) redactError(err error) error {
	u, parseErr := url.Parse(s.cfg.Repository)
	if parseErr != nil || u.User == nil && u.RawQuery == "" {
		return err
	}
	text := err.Error()
	for _, secret := range []string{u.User.String() + "@", "?" + u.RawQuery} {
		if len(secret) > 1 {
			text = strings.ReplaceAll(text, secret, "")
		}
	}
	return errors.New(text)
}

const network, nothing = "https:http:ssh:git:file", "none"

// remote returns the full name of the ref and the object that it names now.
func (s *Source) remote(ctx context.Context) (ref, object string, err error) {
	if err := os.MkdirAll(s.cfg.Dir, 0o700); err != nil {
		return "", "", err
	}
	names := []string{"refs/heads/" + s.cfg.Ref, "refs/tags/" + s.cfg.Ref}
	if strings.HasPrefix(s.cfg.Ref, "refs/") {
		names = []string{s.cfg.Ref}
	}
	out, err := s.git(ctx, nil, 1<<20, network,
		append([]string{"ls-remote", "--quiet", "--", s.cfg.Repository}, names...)...)
	if err != nil {
		return "", "", err
	}
	for line := range strings.Lines(string(out)) {
		id, name, _ := strings.Cut(strings.TrimSpace(line), "\t")
		for _, n := range names {
			if name != n {
				continue
			}
			if ref != "" {
				return "", "", fmt.Errorf("it is a branch and a tag: want %s or %s", names[0],
					names[1])
			}
			ref, object = name, id
		}
	}
	if ref == "" {
		return "", "", errors.New("the repository has no such branch or tag")
	}
	return ref, object, nil
}

// Every this many commits the source's own repository is made again: git does not tidy it up.
const renewAfter = 100

// take fetches the commit and reads it. Remains of an earlier run, a lock or a part of a commit,
// must not make fetches fail: after an error the next try begins with an empty repository.
func (s *Source) take(ctx context.Context, ref string) (b *bundle.Bundle, err error) {
	defer func() {
		if err != nil || s.taken >= renewAfter {
			s.taken = 0
			err = errors.Join(err, os.RemoveAll(s.cfg.Dir))
		}
	}()
	s.taken++
	if _, err := s.git(ctx, nil, 1<<20, nothing, "init", "--quiet", "--bare",
		"--template="); err != nil {
		return nil, err
	}
	if _, err := s.git(ctx, nil, 1<<20, nothing, "config", "remote.origin.url",
		s.cfg.Repository); err != nil {
		return nil, err
	}
	if _, err := s.git(ctx, nil, 1<<20, network, "fetch", "--quiet", "--no-tags",
		"--no-write-fetch-head", "--no-recurse-submodules", "--depth=1",
		"--filter=blob:limit="+strconv.FormatInt(s.cfg.Limits.FileBytes+1, 10), "--force", "origin",
		ref+":refs/sluice"); err != nil {
		return nil, err
	}
	return s.read(ctx)
}

// read makes a bundle of the commit that refs/sluice names.
func (s *Source) read(ctx context.Context) (*bundle.Bundle, error) {
	args := []string{"ls-tree", "-r", "-z", "--full-tree", "refs/sluice^{commit}"}
	if s.cfg.Subdir != "" {
		args = append(args, "--", s.cfg.Subdir+"/")
	}
	list, err := s.git(ctx, nil, int64(s.cfg.Limits.Files+1)*1200, nothing, args...)
	if errors.Is(err, tool.ErrTooLarge) {
		return nil, fmt.Errorf("more than %d files: %w", s.cfg.Limits.Files, bundle.ErrInvalid)
	} else if err != nil {
		return nil, err
	}
	var entries []entry
	var objects strings.Builder
	for _, line := range strings.Split(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		if line == "" {
			break
		}
		head, name, _ := strings.Cut(line, "\t")
		f := strings.Fields(head)
		if len(f) != 3 || f[1] != "blob" {
			return nil, fmt.Errorf("%q is a submodule, want files and links only: %w", name,
				bundle.ErrInvalid)
		}
		entries = append(entries, entry{mode: f[0], name: name, object: f[2]})
		objects.WriteString(f[2] + "\n")
	}
	if len(entries) > s.cfg.Limits.Files {
		return nil, fmt.Errorf("%d files, limit is %d: %w", len(entries), s.cfg.Limits.Files,
			bundle.ErrInvalid)
	}
	if err := s.checkSizes(ctx, entries, objects.String()); err != nil {
		return nil, err
	}
	var b *bundle.Bundle
	err = s.command(strings.NewReader(objects.String()), 0, nothing, "cat-file",
		"--batch").Stream(ctx, func(blobs io.Reader) (err error) {
		b, err = s.build(entries, bufio.NewReader(blobs))
		return err
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// checkSizes refuses files that are too large, without reading them.
func (s *Source) checkSizes(ctx context.Context, entries []entry, objects string) error {
	tooLarge := func(e entry, size string) error {
		return fmt.Errorf("file %q: %s bytes, limit of one file is %d: %w", e.name, size,
			s.cfg.Limits.FileBytes, bundle.ErrInvalid)
	}
	// The fetch leaves out larger files, when the server can.
	left, err := s.git(ctx, nil, int64(len(entries)+1)*2048, nothing, "rev-list", "--objects",
		"--missing=print", "--no-object-names", "refs/sluice")
	if err != nil {
		return err
	}
	missing := map[string]bool{}
	for line := range strings.Lines(string(left)) {
		if id, ok := strings.CutPrefix(strings.TrimSpace(line), "?"); ok {
			missing[id] = true
		}
	}
	for _, e := range entries {
		if missing[e.object] {
			return tooLarge(e, fmt.Sprint("more than ", s.cfg.Limits.FileBytes))
		}
	}
	sizes, err := s.git(ctx, strings.NewReader(objects), int64(len(entries)+1)*128, nothing,
		"cat-file", "--batch-check=%(objectsize)")
	if err != nil {
		return err
	}
	lines := strings.Fields(string(sizes))
	if len(lines) != len(entries) {
		return fmt.Errorf("git has %d sizes of %d files", len(lines), len(entries))
	}
	var total int64
	for i, e := range entries {
		size, err := strconv.ParseInt(lines[i], 10, 64)
		if err != nil {
			return fmt.Errorf("file %q: %w", e.name, err)
		}
		if total += size; size > s.cfg.Limits.FileBytes {
			return tooLarge(e, lines[i])
		}
	}
	if total > s.cfg.Limits.Bytes {
		return fmt.Errorf("%d bytes, limit is %d: %w", total, s.cfg.Limits.Bytes, bundle.ErrInvalid)
	}
	return nil
}

type entry struct{ mode, name, object string }

// build reads the output of cat-file --batch: for each object a line with its size, its content and
// a line break.
func (s *Source) build(entries []entry, blobs *bufio.Reader) (*bundle.Bundle, error) {
	b := &bundle.Builder{Limits: s.cfg.Limits, Subdir: s.cfg.Subdir, Roots: s.cfg.Roots}
	for _, e := range entries {
		head, err := blobs.ReadString('\n')
		f := strings.Fields(head)
		if err != nil || len(f) != 3 || f[1] != "blob" {
			return nil, fmt.Errorf("file %q: git has no content for it: %q", e.name, head)
		}
		size, err := strconv.ParseInt(f[2], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("file %q: %w", e.name, err)
		}
		content := io.LimitReader(blobs, size)
		switch e.mode {
		case "120000":
			var target []byte
			if target, err = io.ReadAll(content); err == nil {
				err = b.Link(e.name, string(target))
			}
		case "100755":
			err = b.Add(e.name, 0o755, size, content)
		default:
			err = b.Add(e.name, 0o644, size, content)
		}
		if err != nil {
			return nil, err
		}
		if _, err := io.Copy(io.Discard, content); err != nil { // of a file that is passed over
			return nil, fmt.Errorf("file %q: %w", e.name, err)
		}
		if _, err := blobs.Discard(1); err != nil {
			return nil, fmt.Errorf("file %q: %w", e.name, err)
		}
	}
	return b.Bundle()
}
