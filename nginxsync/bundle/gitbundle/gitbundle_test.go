package gitbundle_test

import (
	"fmt"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/depcheck"
	"github.com/sluice-deploy/sluice/nginxsync/bundle"
	"github.com/sluice-deploy/sluice/nginxsync/bundle/bundletest"
	"github.com/sluice-deploy/sluice/nginxsync/bundle/gitbundle"
)

// repository is a work tree and the bare repository that it is pushed to.
type repository struct {
	t          *testing.T
	work, bare string
	branch     string
}

func (r *repository) git(args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", append([]string{"-C", r.work, "-c", "user.name=a", "-c",
		"user.email=a@b.example", "-c", "core.autocrlf=false", "-c", "protocol.file.allow=always"},
		args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("git %v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func newRepository(t *testing.T) *repository {
	dir := t.TempDir()
	r := &repository{t: t, work: filepath.Join(dir, "work"), bare: filepath.Join(dir, "bare.git"),
		branch: "main"}
	require.NoError(t, os.Mkdir(r.work, 0o755))
	r.git("init", "-q", "-b", "main")
	r.git("init", "-q", "--bare", r.bare)
	r.git("-C", r.bare, "config", "uploadpack.allowFilter", "true")
	r.git("-C", r.bare, "config", "http.receivepack", "false")
	return r
}

// set commits the files below the directory and pushes them.
func (r *repository) set(directory string, f bundletest.Files) {
	r.t.Helper()
	dir := filepath.Join(r.work, directory)
	require.NoError(r.t, os.MkdirAll(dir, 0o755))
	kept := filepath.Join(r.t.TempDir(), "git")
	if directory == "" {
		require.NoError(r.t, os.Rename(filepath.Join(r.work, ".git"), kept))
	}
	bundletest.Write(r.t, dir, f)
	if directory == "" {
		require.NoError(r.t, os.Rename(kept, filepath.Join(r.work, ".git")))
	}
	r.commit()
}

func (r *repository) commit() {
	r.t.Helper()
	r.git("add", "-A")
	r.git("commit", "-q", "--allow-empty", "-m", "x")
	r.git("push", "-q", "--force", r.bare, "HEAD:"+r.branch)
}

func newSource(t *testing.T, cfg gitbundle.Config) *gitbundle.Source {
	cfg.Dir = filepath.Join(t.TempDir(), "own")
	cfg.Every = 200 * time.Millisecond
	source, err := gitbundle.New(cfg)
	require.NoError(t, err)
	return source
}

func TestContractOfALocalRepository(t *testing.T) {
	t.Parallel()
	bundletest.Run(t, func(t *testing.T) *bundletest.Harness {
		r := newRepository(t)
		return &bundletest.Harness{
			Source: newSource(t, gitbundle.Config{Repository: r.bare, Ref: "main",
				Limits: bundletest.Limits}),
			Set:  func(f bundletest.Files) { r.set("", f) },
			Away: func() { require.NoError(t, os.Rename(r.bare, r.bare+".away")) },
			Back: func() { require.NoError(t, os.Rename(r.bare+".away", r.bare)) },
		}
	})
}

// serve is a git server by HTTP, on git's own http-backend.
func serve(t *testing.T, r *repository) *httptest.Server {
	exe, err := exec.Command("git", "--exec-path").Output()
	require.NoError(t, err)
	s := httptest.NewServer(&cgi.Handler{
		Path:       filepath.Join(strings.TrimSpace(string(exe)), "git-http-backend"),
		Env:        []string{"GIT_PROJECT_ROOT=" + filepath.Dir(r.bare), "GIT_HTTP_EXPORT_ALL=1"},
		InheritEnv: []string{"PATH"},
	})
	t.Cleanup(s.Close)
	return s
}

func TestContractOfADirectoryByHTTP(t *testing.T) {
	t.Parallel()
	bundletest.Run(t, func(t *testing.T) *bundletest.Harness {
		r := newRepository(t)
		r.set("", bundletest.Files{"README": "outside of the directory"})
		return &bundletest.Harness{
			Source: newSource(t, gitbundle.Config{Repository: serve(t, r).URL + "/bare.git",
				Ref: "refs/heads/main", Subdir: "etc/nginx", Limits: bundletest.Limits}),
			Set:  func(f bundletest.Files) { r.set("etc/nginx", f) },
			Away: func() { require.NoError(t, os.Rename(r.bare, r.bare+".away")) },
			Back: func() { require.NoError(t, os.Rename(r.bare+".away", r.bare)) },
		}
	})
}

func TestRefs(t *testing.T) {
	t.Parallel()
	r := newRepository(t)
	r.set("", bundletest.Files{"nginx.conf": "1"})
	r.git("tag", "-a", "v1", "-m", "annotated")
	r.git("tag", "both")
	r.set("", bundletest.Files{"nginx.conf": "2"})
	r.git("push", "-q", r.bare, "v1", "both", "HEAD:refs/heads/both",
		"HEAD:refs/heads/a/refs/heads/main")
	for _, c := range []struct{ ref, want, fails string }{
		{"main", "2", ""},
		{"refs/heads/main", "2", ""},
		{"v1", "1", ""},
		{"refs/tags/v1", "1", ""},
		{"both", "", "it is a branch and a tag: want refs/heads/both or refs/tags/both"},
		{"refs/tags/both", "1", ""},
		{"none", "", "no such branch or tag"},
		{"refs/heads/mai*", "", "want the name of a branch or a tag"},
		{"--upload-pack=x", "", "want the name of a branch or a tag"},
		{"main^", "", "want the name of a branch or a tag"},
	} {
		source, err := gitbundle.New(gitbundle.Config{Repository: r.bare, Ref: c.ref,
			Dir: t.TempDir()})
		var b *bundle.Bundle
		if err == nil {
			b, err = source.Fetch(t.Context(), "")
		}
		if c.fails != "" {
			require.ErrorContains(t, err, c.fails, c.ref)
			continue
		}
		require.NoError(t, err, c.ref)
		require.Equal(t, c.want, b.Files["nginx.conf"].Text, c.ref)
	}
}

// Entries of a repository that a bundle may not have are refused.
func TestRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, want string
		change     func(r *repository)
	}{
		{"submodule", `"sub" is a submodule`, func(r *repository) {
			r.git("update-index", "--add", "--cacheinfo", "160000,"+r.git("rev-parse", "HEAD")+
				",sub")
			r.git("commit", "-q", "-m", "sub")
			r.git("push", "-q", r.bare, "HEAD:main")
		}},
		{"link out", "it leads out of the tree", func(r *repository) {
			require.NoError(r.t, os.Symlink("../../../etc/passwd", filepath.Join(r.work, "x")))
			r.commit()
		}},
		{"a file beyond the limit stays where it is",
			`file "large": more than 32768 bytes, limit of one file is 32768`, func(r *repository) {
				require.NoError(r.t, os.WriteFile(filepath.Join(r.work, "large"),
					make([]byte, 1<<20),
					0o600))
				r.commit()
			}},
	} {
		r := newRepository(t)
		r.set("", bundletest.Files{"nginx.conf": "1"})
		source := newSource(t, gitbundle.Config{Repository: "file://" + r.bare, Ref: "main",
			Limits: bundletest.Limits})
		b, err := source.Fetch(t.Context(), "")
		require.NoError(t, err)
		c.change(r)
		_, err = source.Fetch(t.Context(), b.Digest)
		require.ErrorIs(t, err, bundle.ErrInvalid, c.name)
		require.ErrorContains(t, err, c.want, c.name)
	}
}

// Links inside, attributes and line ending rules: the bundle has the files as they are stored.
func TestFilesAreThoseThatAreStored(t *testing.T) {
	t.Parallel()
	r := newRepository(t)
	require.NoError(t, os.Symlink("nginx.conf", filepath.Join(r.work, "link.conf")))
	require.NoError(t, os.WriteFile(filepath.Join(r.work, ".gitattributes"),
		[]byte("*.conf export-ignore export-subst filter=evil\n*.txt eol=crlf\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(r.work, "nginx.conf"),
		[]byte("# $Format:%H$\r\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(r.work, "a.txt"), []byte("a\n"), 0o600))
	r.commit()
	b, err := newSource(t, gitbundle.Config{Repository: r.bare, Ref: "main"}).Fetch(t.Context(), "")
	require.NoError(t, err)
	require.Equal(t, "# $Format:%H$\r\n", b.Files["nginx.conf"].Text)
	require.Equal(t, "# $Format:%H$\r\n", b.Files["link.conf"].Text)
	require.Equal(t, "a\n", b.Files["a.txt"].Text)
}

// Neither the configuration of the user nor the environment of the process makes git run anything.
// This test sets both, and so does not run beside others.
func TestNothingOfTheUserRuns(t *testing.T) {
	r := newRepository(t)
	r.set("", bundletest.Files{"nginx.conf": "1"})
	home, hit := t.TempDir(), filepath.Join(t.TempDir(), "hit")
	script := filepath.Join(home, "script")
	require.NoError(t, os.WriteFile(script, []byte("#!/bin/sh\ntouch "+hit+"\nexit 1\n"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(home, ".gitconfig"), fmt.Appendf(nil,
		"[core]\n hooksPath = %[1]s\n fsmonitor = %[2]s\n sshCommand = %[2]s\n[credential]\n "+
			"helper = !%[2]s\n[url \"ext::%[2]s\"]\n insteadOf = %[3]s\n", home, script, r.bare),
		0o600))
	for _, hook := range []string{"reference-transaction", "post-checkout", "post-index-change"} {
		require.NoError(t, os.Symlink(script, filepath.Join(home, hook)))
	}
	t.Setenv("HOME", home)
	t.Setenv("GIT_CONFIG_GLOBAL", filepath.Join(home, ".gitconfig"))
	t.Setenv("GIT_SSH", script)
	t.Setenv("GIT_PROXY_COMMAND", script)
	t.Setenv("GIT_EXTERNAL_DIFF", script)
	t.Setenv("GIT_TRACE", hit)
	_, err := newSource(t, gitbundle.Config{Repository: r.bare, Ref: "main"}).Fetch(t.Context(), "")
	require.NoError(t, err)
	require.NoFileExists(t, hit)
}

// A fetch that was killed leaves locks behind; the next one gets over them.
func TestLeftoversOfAKilledFetch(t *testing.T) {
	t.Parallel()
	r := newRepository(t)
	r.set("", bundletest.Files{"nginx.conf": "1"})
	cfg := gitbundle.Config{Repository: r.bare, Ref: "main", Dir: filepath.Join(t.TempDir(), "own"),
		Every: time.Millisecond}
	source, err := gitbundle.New(cfg)
	require.NoError(t, err)
	first, err := source.Fetch(t.Context(), "")
	require.NoError(t, err)
	for _, name := range []string{"shallow.lock", "refs/sluice.lock", "config.lock", "HEAD.lock"} {
		require.NoError(t, os.WriteFile(filepath.Join(cfg.Dir, name), nil, 0o600))
	}
	r.set("", bundletest.Files{"nginx.conf": "2"})
	b, err := source.Fetch(t.Context(), first.Digest)
	if err != nil {
		b, err = source.Fetch(t.Context(), first.Digest)
	}
	require.NoError(t, err)
	require.Equal(t, "2", b.Files["nginx.conf"].Text)
}

func TestNoSecretInErrors(t *testing.T) {
	t.Parallel()
	source := newSource(t,
		gitbundle.Config{Repository: "http://user:geheim@127.0.0.1:1/x.git?token=geheim",
			Ref: "main"})
	_, err := source.Fetch(t.Context(), "")
	require.ErrorContains(t, err, "gitbundle http://127.0.0.1:1/x.git, ref main")
	require.NotContains(t, err.Error(), "geheim")
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	for _, repository := range []string{"", "ext::sh -c x", "relative/path", "--upload-pack=x",
		"fd::3", "host:path"} {
		_, err := gitbundle.New(gitbundle.Config{Repository: repository, Ref: "main", Dir: "x"})
		require.ErrorContains(t, err, "Repository", repository)
	}
	_, err := gitbundle.New(gitbundle.Config{Repository: "/x", Ref: "main", Dir: "x",
		Subdir: "../y"})
	require.ErrorContains(t, err, "Subdir")
	_, err = gitbundle.New(gitbundle.Config{Repository: "/x", Ref: "main"})
	require.ErrorContains(t, err, "Config.Dir: is required")
}

func TestImports(t *testing.T) {
	t.Parallel()
	depcheck.StdlibOnly(t, "github.com/sluice-deploy/sluice/nginxsync/bundle/gitbundle")
}
