// Package httpbundle is a bundle.Source on a tar archive, compressed with gzip or not, that an HTTP
// server has.
//
// Purpose: a production tree that a build or an artefact store publishes. New makes a Source that
// asks for the archive every Every and, by its ETag or Last-Modified, takes it only when it has
// changed.
//
// Content: the files below Subdir of the archive; links are resolved when they stay there. An
// archive that ends early, that is larger than the limits allow, packed or unpacked, or whose
// checksum differs is refused.
//
// Permissions: to read the URL; credentials are given with Header or with the Client's transport.
// Limits: redirects from https to http are refused.
package httpbundle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync/bundle"
	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check"
)

// Config configures a Source. URL is required.
type Config struct {
	URL string // of the archive, http or https
	// ChecksumURL is that of a file with the archive's SHA-256, alone or as sha256sum writes it.
	// Empty means that there is none.
	ChecksumURL string
	// Subdir is the part of the archive that is the production tree. Empty means all of it.
	Subdir string
	// Header is sent with each request. It is the place for credentials.
	Header http.Header
	// Client sends the requests. The default is one like http.DefaultClient.
	Client *http.Client
	// Every is the time between two looks. The default is 30 seconds.
	Every time.Duration
	// Timeout is how long one look may take. The default is two minutes.
	Timeout time.Duration
	// Roots say where the targets of links are in the tree. The default is that it stands for
	// /etc/nginx.
	Roots  conf.Roots
	Limits bundle.Limits
}

// Source is a bundle.Source. It is safe for concurrent use.
type Source struct {
	cfg    Config
	client http.Client

	mu     sync.Mutex // one look at a time
	state  validators // of bundle
	bundle *bundle.Bundle
}

type validators struct{ etag, modified, checksum string }

var _ bundle.Source = (*Source)(nil)

// New checks the configuration. The error has all its problems, and bundle.ErrInvalid in its chain.
func New(cfg Config) (*Source, error) {
	p := check.Problems{Package: "httpbundle", Sentinel: bundle.ErrInvalid}
	for _, f := range []struct{ field, text string }{{"URL", cfg.URL},
		{"ChecksumURL", cfg.ChecksumURL}} {
		if f.field == "ChecksumURL" && f.text == "" {
			continue
		}
		if u, err := url.Parse(f.text); err != nil || u.Scheme != "http" && u.Scheme != "https" ||
			u.Host == "" {
			p.Add(f.field, "want http:// or https:// and a host") // it may hold a password
		}
	}
	if cfg.Subdir != "" && !fs.ValidPath(cfg.Subdir) {
		p.Add("Subdir", "%q: want a relative path that neither . nor .. is part of", cfg.Subdir)
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
	s := &Source{cfg: cfg}
	if cfg.Client != nil {
		s.client = *cfg.Client
	}
	ask := s.client.CheckRedirect
	s.client.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		switch {
		case via[0].URL.Scheme == "https" && req.URL.Scheme != "https":
			return errors.New("a redirect from https to http")
		case ask != nil:
			return ask(req, via)
		case len(via) >= 10:
			return errors.New("more than 10 redirects")
		}
		return nil
	}
	return s, nil
}

// Fetch implements bundle.Source.
func (s *Source) Fetch(ctx context.Context, after string) (*bundle.Bundle, error) {
	return bundle.Polling{Every: s.cfg.Every}.Fetch(ctx, after, s.look)
}

func (s *Source) look(ctx context.Context) (bundle.View, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	timeout := s.cfg.Timeout
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no whole answer in %s",
		timeout))
	defer cancel()
	if err := s.take(ctx); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return bundle.View{}, fmt.Errorf("httpbundle %s: %w", redacted(s.cfg.URL), err)
	}
	return s.bundle.View(), nil
}

// redacted is the URL without user, password and query.
func redacted(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "?"
	}
	return u.Scheme + "://" + u.Host + u.Path
}

// take asks for the archive when it may have changed.
func (s *Source) take(ctx context.Context) error {
	next := validators{}
	if s.cfg.ChecksumURL != "" {
		text, err := s.text(ctx, s.cfg.ChecksumURL)
		if err != nil {
			return fmt.Errorf("checksum %s: %w", redacted(s.cfg.ChecksumURL), err)
		}
		if next.checksum, err = checksum(text, path.Base(s.cfg.URL)); err != nil {
			return fmt.Errorf("checksum %s: %w", redacted(s.cfg.ChecksumURL), err)
		}
	}
	known := s.state
	if s.bundle == nil || known.checksum != next.checksum {
		known = validators{}
	}
	// A packed archive that is larger than its content by more than the headers is none that we
	// want.
	limit := s.cfg.Limits.Bytes + int64(s.cfg.Limits.Files)*2048 + 1<<20
	resp, err := s.get(ctx, s.cfg.URL, known)
	if err != nil || resp == nil {
		return err
	}
	defer resp.Body.Close()
	if resp.ContentLength > limit {
		return fmt.Errorf("%d bytes, want at most %d: %w", resp.ContentLength, limit,
			bundle.ErrInvalid)
	}
	hash := sha256.New()
	body := &limited{r: io.TeeReader(resp.Body, hash), left: limit, limit: limit}
	reader := bundle.Reader{Limits: s.cfg.Limits, Subdir: s.cfg.Subdir, Roots: s.cfg.Roots}
	b, err := reader.Tar(body)
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, body); err != nil {
		return err
	}
	if sum := hash.Sum(nil); next.checksum != "" && next.checksum != hex.EncodeToString(sum) {
		return fmt.Errorf("the archive's SHA-256 is %x, want %s: %w", sum, next.checksum,
			bundle.ErrInvalid)
	}
	next.etag, next.modified = resp.Header.Get("ETag"), resp.Header.Get("Last-Modified")
	s.state, s.bundle = next, b
	return nil
}

// limited fails when there is more to read than the limit.
type limited struct {
	r           io.Reader
	left, limit int64
}

func (l *limited) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return 0, fmt.Errorf("more than %d bytes: %w", l.limit, bundle.ErrInvalid)
	}
	return n, err
}

// text is the body of a small answer.
func (s *Source) text(ctx context.Context, from string) (string, error) {
	resp, err := s.get(ctx, from, validators{})
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(&limited{r: resp.Body, left: 1 << 20, limit: 1 << 20})
	return string(text), err
}

// get returns the answer, whose body the caller closes, or nil when the server reports that the
// archive has not changed.
func (s *Source) get(ctx context.Context, from string, known validators) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, errors.New("the URL cannot be asked for")
	}
	for name, values := range s.cfg.Header {
		req.Header[name] = values
	}
	// Else the transport would unpack a response with a Content-Encoding, without a limit of ours.
	req.Header.Set("Accept-Encoding", "identity")
	if known.etag != "" {
		req.Header.Set("If-None-Match", known.etag)
	} else if known.modified != "" {
		req.Header.Set("If-Modified-Since", known.modified)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the URL and its secrets
		}
		return nil, err
	}
	switch {
	case resp.StatusCode == http.StatusNotModified && known != (validators{}):
		return nil, resp.Body.Close()
	case resp.StatusCode != http.StatusOK:
		resp.Body.Close()
		return nil, fmt.Errorf("status %s, want 200", resp.Status)
	}
	return resp, nil
}

// checksum is the SHA-256 in the text that stands alone or beside the name.
func checksum(text, name string) (string, error) {
	if u, err := url.Parse(name); err == nil {
		name = path.Base(u.Path)
	}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 || len(f) == 2 && strings.TrimPrefix(path.Base(f[1]), "*") != name {
			continue
		}
		if sum, err := hex.DecodeString(f[0]); err == nil && len(sum) == sha256.Size &&
			len(f) <= 2 {
			return strings.ToLower(f[0]), nil
		}
	}
	return "", fmt.Errorf("no SHA-256 for %q in it: %w", name, bundle.ErrInvalid)
}
