// Package archivesource fetches archives: tar, plain or compressed with gzip or zstd, or zip, by
// HTTP or from a directory of this machine.
//
// The whole file is fetched and its SHA-256 compared with the order's before the first file is
// unpacked.
package archivesource

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/source"
	"github.com/sluice-deploy/sluice/builder/source/internal/tree"
	"github.com/sluice-deploy/sluice/builder/source/internal/unpack"
)

// Config configures a [Fetcher]. The zero value fetches by HTTP.
type Config struct {
	// Transport carries the requests. The default, for nil, is http.DefaultTransport.
	Transport http.RoundTripper
	// Idle is how long a server may send nothing. The default is one minute.
	Idle time.Duration
	// Dir is the directory whose files a URL file:///name may name. The default is none: such URLs
	// are refused.
	Dir string
}

const defaultIdle = time.Minute

// Fetcher fetches archives. It is safe for concurrent use.
type Fetcher struct {
	config Config
	client *http.Client
}

var _ source.Fetcher = (*Fetcher)(nil)

// New returns a fetcher, or every problem of cfg at once, each wrapping builder.ErrInvalid. It does
// no I/O.
func New(cfg Config) (*Fetcher, error) {
	if cfg.Idle < 0 {
		return nil, fmt.Errorf("archivesource: Config.Idle: %s: want 0 (default %s) or more: %w",
			cfg.Idle, defaultIdle, builder.ErrInvalid)
	}
	if cfg.Transport == nil {
		cfg.Transport = http.DefaultTransport
	}
	if cfg.Idle == 0 {
		cfg.Idle = defaultIdle
	}
	return &Fetcher{cfg, &http.Client{Transport: cfg.Transport, CheckRedirect: redirect}}, nil
}

// redirect follows a few redirections, none from https:// to http://. The client itself leaves
// credentials out of a request to another host.
func redirect(next *http.Request, before []*http.Request) error {
	if len(before) >= 5 {
		return errors.New("more than 5 redirections")
	}
	if s := next.URL.Scheme; s != "https" && (s != "http" || before[0].URL.Scheme == "https") {
		return fmt.Errorf("redirection from %s to %s", before[0].URL.Scheme, s)
	}
	return nil
}

// Fetch implements source.Fetcher.
func (f *Fetcher) Fetch(ctx context.Context, r source.Request) (source.Identity, error) {
	return source.Run(ctx, r, source.KindArchive, f.fetch)
}

func (f *Fetcher) fetch(ctx context.Context, r source.Request) (source.Identity, error) {
	id, err := f.run(ctx, r)
	if err != nil {
		return source.Identity{}, failure(ctx, r, err)
	}
	return id, nil
}

func (f *Fetcher) run(ctx context.Context, r source.Request) (source.Identity, error) {
	file, err := os.OpenFile(filepath.Join(r.Scratch, "archive"), os.O_RDWR|os.O_CREATE|os.O_EXCL,
		0o600)
	if err != nil {
		return source.Identity{}, err
	}
	defer file.Close()
	if err := f.download(ctx, r, file); err != nil {
		return source.Identity{}, err
	}
	w, err := tree.NewWriter(r.Dir, tree.Limits(r.Limits))
	if err != nil {
		return source.Identity{}, err
	}
	defer w.Abort()
	if err := unpack.File(ctx, w, file); err != nil {
		return source.Identity{}, err
	}
	id := source.Identity{Kind: source.KindArchive, ID: "sha256:" + r.Source.Archive.SHA256}
	id.Files, id.Bytes, err = w.Close()
	return id, err
}

// download writes the archive into file and compares its sum.
func (f *Fetcher) download(ctx context.Context, r source.Request, file *os.File) error {
	content, err := f.open(ctx, r)
	if err != nil {
		return err
	}
	defer content.Close()
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(file, sum), io.LimitReader(content, r.Limits.Bytes+1))
	switch got := hex.EncodeToString(sum.Sum(nil)); {
	case err != nil:
		return err
	case n > r.Limits.Bytes:
		return tooLarge(r)
	case got != r.Source.Archive.SHA256:
		return source.Fail(r, builder.ReasonSourceRefused, fmt.Errorf("its %d bytes have SHA-256 "+
			"%s, want %s", n, got, r.Source.Archive.SHA256),
			"the file was replaced or damaged: name the sum of the file as it is served")
	}
	return nil
}

func tooLarge(r source.Request) error {
	return fmt.Errorf("the archive has more than %d bytes: %w", r.Limits.Bytes, tree.ErrRefused)
}

// open begins to read the archive. A server that sends nothing for a while is left.
func (f *Fetcher) open(ctx context.Context, r source.Request) (io.ReadCloser, error) {
	a := r.Source.Archive
	if name, ok := strings.CutPrefix(a.URL, "file:///"); ok {
		return f.local(r, name)
	}
	ctx, stop := context.WithCancelCause(ctx)
	idle := time.AfterFunc(f.config.Idle, func() {
		stop(fmt.Errorf("it sent nothing for %s: %w", f.config.Idle, errIdle))
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.URL, nil)
	if err != nil {
		return nil, source.Fail(r, builder.ReasonSourceNotFound, err, "correct the URL")
	}
	req.Header.Set("Accept-Encoding", "identity") // the sum is of the file itself
	if a.Secret != "" && a.User != "" {
		req.SetBasicAuth(a.User, r.Secrets[a.Secret])
	} else if a.Secret != "" {
		req.Header.Set("Authorization", "Bearer "+r.Secrets[a.Secret])
	}
	resp, err := f.client.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		idle.Stop()
		stop(nil)
		return nil, err
	}
	body := &body{resp.Body, ctx, idle, f.config.Idle, stop}
	if err := answered(r, resp); err != nil {
		return nil, errors.Join(err, body.Close())
	}
	return body, nil
}

var errIdle = errors.New("idle")

// body reads an answer and gives the server more time with each part of it.
type body struct {
	io.ReadCloser
	ctx  context.Context
	idle *time.Timer
	each time.Duration
	stop context.CancelCauseFunc
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.idle.Reset(b.each)
	if err != nil && !errors.Is(err, io.EOF) {
		if cause := context.Cause(b.ctx); cause != nil {
			err = cause
		} else {
			err = fmt.Errorf("%w: %w", err, errCut)
		}
	}
	return n, err
}

var errCut = errors.New("the connection ended early")

func (b *body) Close() error {
	b.idle.Stop()
	b.stop(nil)
	return b.ReadCloser.Close()
}

// answered is the failure of an answer without an archive.
func answered(r source.Request, resp *http.Response) error {
	fail := func(reason builder.Reason, hint string) error {
		return source.Fail(r, reason, fmt.Errorf("the server answered %d", resp.StatusCode), hint,
			fmt.Sprintf("the server answered with status %d", resp.StatusCode))
	}
	switch s := resp.StatusCode; {
	case s == http.StatusOK && resp.ContentLength > r.Limits.Bytes:
		return tooLarge(r)
	case s == http.StatusOK:
		return nil
	case s == http.StatusNotFound || s == http.StatusGone:
		return fail(builder.ReasonSourceNotFound, "look at the URL")
	case s == http.StatusUnauthorized || s == http.StatusForbidden:
		return fail(builder.ReasonSourceDenied, "look at the user, the secret and its rights")
	case s == http.StatusTooManyRequests || s == http.StatusRequestTimeout || s >= 500:
		return fail(builder.ReasonSourceAway, "try again; look at the log of the server")
	}
	return fail(builder.ReasonSourceRefused, "name the URL under which the file is served")
}

// local opens a file of Config.Dir.
func (f *Fetcher) local(r source.Request, name string) (io.ReadCloser, error) {
	if f.config.Dir == "" {
		return nil, source.Fail(r, builder.ReasonSourceDenied,
			errors.New("this builder reads no archives of its own disk"),
			"use a URL of a server, or set Config.Dir of archivesource")
	}
	root, err := os.OpenRoot(f.config.Dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	name = filepath.FromSlash(name)
	info, err := root.Stat(name) // a pipe would not open
	switch {
	case err != nil:
		return nil, source.Fail(r, builder.ReasonSourceNotFound, err,
			"look for the file in the directory that the builder reads archives from")
	case !info.Mode().IsRegular():
		return nil, source.Fail(r, builder.ReasonSourceNotFound,
			errors.New("it is no regular file"), "name a file")
	case info.Size() > r.Limits.Bytes:
		return nil, tooLarge(r)
	}
	return root.Open(name)
}

// failure says why a fetch did not succeed.
func failure(ctx context.Context, r source.Request, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("fetch %s: %w", r.Source, context.Cause(ctx))
	}
	var known *builder.Failure
	var path *fs.PathError
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, tree.ErrRefused):
		return source.Fail(r, builder.ReasonSourceRefused, err,
			"correct the archive, or raise the limits of the builder")
	case errors.As(err, &path):
		return source.Fail(r, builder.ReasonInfrastructure, err,
			"look whether the builder's disk has room")
	}
	return source.Fail(r, builder.ReasonSourceAway, err,
		"look whether the server runs and can be reached")
}
