// Package gitsource fetches commits of git repositories.
//
// It runs the machine's git, 2.20 or newer (Debian: git), which resolves a branch or tag to a
// commit and transfers that commit alone, without history, over https://, http:// or git://. The
// files are read out of the commit, not checked out: no attribute, filter, line ending or hook
// changes them. Submodules and files that git-lfs keeps elsewhere are refused. git reads no
// configuration of the machine or its users; the password goes to it in its environment.
package gitsource

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/source"
	"github.com/sluice-deploy/sluice/builder/source/internal/program"
	"github.com/sluice-deploy/sluice/builder/source/internal/tree"
)

// Config configures a [Fetcher]. The zero value works.
type Config struct {
	// Program is the path of git. The default is "git" in the search path.
	Program string
	// CAFile has the certificates, in PEM, that https:// trusts. The default is the machine's.
	CAFile string
}

// Fetcher fetches with git. It is safe for concurrent use.
type Fetcher struct{ config Config }

var _ source.Fetcher = (*Fetcher)(nil)

// New returns a fetcher, or every problem of cfg at once, each wrapping builder.ErrInvalid. It does
// no I/O.
func New(cfg Config) (*Fetcher, error) {
	if cfg.CAFile != "" && !filepath.IsAbs(cfg.CAFile) {
		return nil, fmt.Errorf("gitsource: Config.CAFile: %q: want an absolute path: %w",
			cfg.CAFile,
			builder.ErrInvalid)
	}
	if cfg.Program == "" {
		cfg.Program = "git"
	}
	return &Fetcher{cfg}, nil
}

// fetch is one call of Fetch.
type fetch struct {
	source.Request
	config Config
	repo   string // a bare repository below Scratch
}

// Fetch implements source.Fetcher.
func (f *Fetcher) Fetch(ctx context.Context, r source.Request) (source.Identity, error) {
	return source.Run(ctx, r, source.KindGit, f.fetch)
}

func (f *Fetcher) fetch(ctx context.Context, r source.Request) (source.Identity, error) {
	job := fetch{r, f.config, filepath.Join(r.Scratch, "repo")}
	id, err := job.run(ctx)
	if err != nil {
		return source.Identity{}, job.failure(ctx, err)
	}
	return id, nil
}

func (f fetch) run(ctx context.Context) (source.Identity, error) {
	commit := f.Source.Git.Commit
	if f.Pinned.ID != "" {
		commit = f.Pinned.ID
	}
	if commit == "" {
		var err error
		if commit, err = f.resolve(ctx); err != nil {
			return source.Identity{}, err
		}
		fmt.Fprintf(f.Log, "%s is commit %s\n", f.Source.Git.Ref, commit)
	}
	if err := f.transfer(ctx, commit); err != nil {
		return source.Identity{}, err
	}
	entries, err := f.list(ctx, commit)
	if err != nil {
		return source.Identity{}, err
	}
	id := source.Identity{Kind: source.KindGit, ID: commit}
	id.Files, id.Bytes, err = f.write(ctx, entries)
	return id, err
}

// resolve asks the repository which commit a branch or tag is.
func (f fetch) resolve(ctx context.Context) (string, error) {
	ref := f.Source.Git.Ref
	wanted := []string{"refs/heads/" + ref, "refs/tags/" + ref}
	if strings.HasPrefix(ref, "refs/") {
		wanted = []string{ref}
	}
	ask := []string{"ls-remote", "--", f.Source.Git.URL}
	for _, name := range wanted {
		ask = append(ask, name, name+"^{}") // the commit of an annotated tag
	}
	var out bytes.Buffer
	if err := f.git(ctx, &out, ask...); err != nil {
		return "", err
	}
	found := map[string]string{}
	for line := range strings.Lines(out.String()) {
		if id, name, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok {
			found[name] = id
		}
	}
	var commits, of []string
	for _, name := range wanted {
		id := found[name]
		if peeled := found[name+"^{}"]; peeled != "" {
			id = peeled
		}
		if id != "" {
			commits, of = append(commits, id), append(of, name)
		}
	}
	if len(commits) == 0 {
		return "", source.Fail(f.Request, builder.ReasonSourceNotFound,
			errors.New("the repository has no such branch or tag"), "look at the name")
	}
	if len(commits) > 1 && commits[0] != commits[1] {
		return "", source.Fail(f.Request, builder.ReasonSourceNotFound,
			errors.New("a branch and a tag have this name"), "write "+strings.Join(of, " or "))
	}
	return commits[0], nil
}

// transfer brings the commit into a repository of this fetch's own.
func (f fetch) transfer(ctx context.Context, commit string) error {
	format := "sha1"
	if len(commit) == 64 {
		format = "sha256"
	}
	if err := f.git(ctx, nil, "init", "--quiet", "--bare", "--object-format="+format,
		"--template=", f.repo); err != nil {
		return err
	}
	return f.git(ctx, nil, "-C", f.repo, "fetch", "--quiet", "--depth=1", "--no-tags",
		"--no-recurse-submodules", "--no-write-fetch-head", "--", f.Source.Git.URL, commit)
}

// git runs git, which may write to the disk as many bytes as the limit says and some for a
// repository's own files.
func (f fetch) git(ctx context.Context, out *bytes.Buffer, args ...string) error {
	p := program.Program{Path: f.config.Program, Args: args, Dir: f.Scratch, Grows: f.Scratch,
		Limit: f.Limits.Bytes + 1<<20, Env: f.env()}
	if out != nil {
		p.Stdout = out
	}
	return p.Run(ctx)
}

func (f fetch) env() []string {
	settings := [][2]string{{"core.hooksPath", os.DevNull}, {"gc.auto", "0"},
		{"fetch.unpackLimit", "1"}, {"protocol.version", "2"}, {"maintenance.auto", "false"}}
	if name := f.Source.Git.Secret; name != "" {
		user := f.Source.Git.User
		if user == "" {
			user = "git"
		}
		basic := base64.StdEncoding.EncodeToString([]byte(user + ":" + f.Secrets[name]))
		// a redirection would take the password to another host
		settings = append(settings, [2]string{"http.extraHeader", "Authorization: Basic " + basic},
			[2]string{"http.followRedirects", "false"})
	}
	extra := []string{"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull,
		"GIT_CEILING_DIRECTORIES=" + f.Scratch,
		"GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=true", "GIT_ALLOW_PROTOCOL=https:http:git",
		fmt.Sprint("GIT_CONFIG_COUNT=", len(settings))}
	for i, s := range settings {
		extra = append(extra, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i, s[0]),
			fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i, s[1]))
	}
	if f.config.CAFile != "" {
		extra = append(extra, "GIT_SSL_CAINFO="+f.config.CAFile)
	}
	return program.Env(f.Scratch, extra...)
}

// failure says why a fetch did not succeed.
func (f fetch) failure(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("fetch %s: %w", f.Source, context.Cause(ctx))
	}
	var known *builder.Failure
	var ended *program.Error
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, tree.ErrRefused), errors.Is(err, program.ErrTooLarge):
		return source.Fail(f.Request, builder.ReasonSourceRefused, err,
			"correct the commit, or raise the limits of the builder")
	case !errors.As(err, &ended) || ended.Code < 0:
		return source.Fail(f.Request, builder.ReasonInfrastructure, err,
			"look whether git is installed on the builder and its disk has room")
	}
	evidence := fmt.Sprintf("git ended with status %d", ended.Code)
	says := func(texts ...string) bool {
		for _, text := range texts {
			if strings.Contains(ended.Stderr, text) {
				return true
			}
		}
		return false
	}
	switch {
	case says("Authentication failed", "could not read Username", "could not read Password",
		"error: 401", "error: 403"):
		return source.Fail(f.Request, builder.ReasonSourceDenied, err,
			"look at the user, the secret and its right to read the repository", evidence)
	case says("not our ref", "no such remote ref", "remote error: upload-pack: not our ref") &&
		f.Pinned.ID != "":
		return source.Fail(f.Request, builder.ReasonSourceChanged, err,
			"the repository has lost the commit: submit another build", evidence)
	case says("not our ref", "not found", "does not exist", "error: 404",
		"repository not exported", "couldn't find remote ref", "no such remote ref",
		"does not allow request for unadvertised object"):
		return source.Fail(f.Request, builder.ReasonSourceNotFound, err,
			"look at the URL and the commit", evidence)
	case says("No space left"):
		return source.Fail(f.Request, builder.ReasonInfrastructure, err,
			"make room on the builder's disk", evidence)
	case says("unable to connect", "Could not resolve host", "Failed to connect",
		"Connection refused", "Connection reset", "Couldn't connect", "unable to look up",
		"early EOF", "hung up unexpectedly", "timed out", "Empty reply", "error: 5",
		"error: 429", "RPC failed"):
		return source.Fail(f.Request, builder.ReasonSourceAway, err,
			"look whether the server runs and can be reached", evidence)
	}
	return source.Fail(f.Request, builder.ReasonSourceRefused, err,
		"look at the URL and the log of the server", evidence)
}
