package source

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/internal/names"
)

// Source is where files come from: exactly one of the fields is set; the zero value is no source.
type Source struct {
	Rsync    *Rsync    `json:"rsync,omitempty"`
	Git      *Git      `json:"git,omitempty"`
	Archive  *Archive  `json:"archive,omitempty"`
	Artifact *Artifact `json:"artifact,omitempty"`
}

// Rsync is a directory of an rsync daemon.
type Rsync struct {
	// Host is a name or an address. Required.
	Host string `json:"host"`
	// Port is 1 to 65535. The default is 873.
	Port int `json:"port,omitempty"`
	// Module is the daemon's. Required. Path is a directory in it, "" for all of it.
	Module string `json:"module"`
	Path   string `json:"path,omitempty"`
	// User and Secret, the name of the secret with the password, go together. The default is none.
	User   string `json:"user,omitempty"`
	Secret string `json:"secret,omitempty"`
}

// Git is a commit of a repository, or a branch or tag that is resolved to one.
type Git struct {
	// URL starts with https://, http:// or git://, and has no user in it. Required.
	URL string `json:"url"`
	// Commit is the whole object name, 40 or 64 hexadecimal digits. Ref is the name of a branch or
	// tag, or the whole reference: "refs/heads/main". One of the two is required.
	Commit string `json:"commit,omitempty"`
	Ref    string `json:"ref,omitempty"`
	// Secret is the name of the secret with the password or token, for https:// only; User goes
	// with it. The default of User is "git", which hosts that take tokens accept.
	User   string `json:"user,omitempty"`
	Secret string `json:"secret,omitempty"`
}

// Archive is a file: tar, plain or compressed with gzip or zstd, or zip.
type Archive struct {
	// URL starts with https://, http:// or file:///, and has no user in it. Required.
	URL string `json:"url"`
	// SHA256 is the sum of the file as it is served, 64 hexadecimal digits. Required.
	SHA256 string `json:"sha256"`
	// Secret is the name of the secret for https:// only: the password of User or, without User,
	// a bearer token.
	User   string `json:"user,omitempty"`
	Secret string `json:"secret,omitempty"`
}

// Artifact is an OCI artifact: an image manifest with layers that are tar files, plain or
// compressed with gzip or zstd, or single files that an annotation org.opencontainers.image.title
// names.
type Artifact struct {
	// Reference is repository@sha256:…. Required.
	Reference string `json:"reference"`
	// User and Secret, the name of the secret with the password, go together. The default is
	// the fetcher's keychain.
	User   string `json:"user,omitempty"`
	Secret string `json:"secret,omitempty"`
}

// Kind is a kind of source.
type Kind string

// The kinds.
const (
	KindRsync    Kind = "rsync"
	KindGit      Kind = "git"
	KindArchive  Kind = "archive"
	KindArtifact Kind = "artifact"
)

// Kind is that of the field that is set, "" without one.
func (s Source) Kind() Kind {
	switch {
	case s.Rsync != nil:
		return KindRsync
	case s.Git != nil:
		return KindGit
	case s.Archive != nil:
		return KindArchive
	case s.Artifact != nil:
		return KindArtifact
	}
	return ""
}

// String names the source for a person, without the secret's name.
func (s Source) String() string {
	switch {
	case s.Rsync != nil:
		return "rsync " + s.Rsync.URL()
	case s.Git != nil && s.Git.Commit != "":
		return "git " + withoutUser(s.Git.URL) + " commit " + s.Git.Commit
	case s.Git != nil:
		return "git " + withoutUser(s.Git.URL) + " " + s.Git.Ref
	case s.Archive != nil:
		return "archive " + withoutUser(s.Archive.URL)
	case s.Artifact != nil:
		return "artifact " + s.Artifact.Reference
	}
	return "no source"
}

// URL is rsync://host:port/module/path/.
func (r Rsync) URL() string {
	host, port := r.Host, r.Port
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port == 0 {
		port = 873
	}
	return strings.TrimRight("rsync://"+host+":"+strconv.Itoa(port)+"/"+r.Module+"/"+r.Path, "/") +
		"/"
}

// Secrets returns the names of the secrets that fetching the source needs.
func (s Source) Secrets() []string {
	var name string
	switch {
	case s.Rsync != nil:
		name = s.Rsync.Secret
	case s.Git != nil:
		name = s.Git.Secret
	case s.Archive != nil:
		name = s.Archive.Secret
	case s.Artifact != nil:
		name = s.Artifact.Secret
	}
	if name == "" {
		return nil
	}
	return []string{name}
}

var (
	objectName = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
	sum        = regexp.MustCompile(`^[0-9a-f]{64}$`)
	byDigest   = regexp.MustCompile(`^[^@\s]+@sha256:[0-9a-f]{64}$`)
	module     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	host       = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`)
	user       = regexp.MustCompile(`^[A-Za-z0-9._][A-Za-z0-9._-]{0,127}$`)
	urlRest    = regexp.MustCompile(`^[^\s\x00-\x1f\x7f@]+$`)
	// git-check-ref-format(1), without characters that have a meaning in a shell or a refspec
	refName    = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9._/+=,#%-]*[A-Za-z0-9_+=,#%-])?$`)
	secretName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,128}$`)
)

// Validate returns every problem of the source, joined, each wrapping builder.ErrInvalid. The zero
// Source has none.
func (s Source) Validate() error {
	var c check
	n := 0
	if r := s.Rsync; r != nil {
		n++
		_, err := netip.ParseAddr(r.Host)
		c.want(err == nil || len(r.Host) <= 253 && host.MatchString(r.Host), "rsync.host", r.Host,
			"a host name or an address")
		c.want(r.Port >= 0 && r.Port <= 65535, "rsync.port", fmt.Sprint(r.Port),
			"0 (default 873) to 65535")
		c.want(module.MatchString(r.Module), "rsync.module", r.Module,
			"letters, digits, \".\", \"_\" and \"-\"")
		c.want(r.Path == "" || path.Clean("/"+r.Path) == "/"+strings.TrimSuffix(r.Path, "/") &&
			!strings.ContainsAny(r.Path, "\x00\n\r*?[\\"), "rsync.path", r.Path,
			"a path in the module, without . and .. and without patterns")
		c.credentials("rsync", r.User, r.Secret, true)
	}
	if g := s.Git; g != nil {
		n++
		c.want(schemed(g.URL, "https://", "http://", "git://"), "git.url", withoutUser(g.URL),
			"https://, http:// or git:// without a user")
		switch {
		case g.Commit != "" && g.Ref != "":
			c.want(false, "git.ref", g.Ref, "none beside a commit")
		case g.Commit == "" && g.Ref == "":
			c.want(false, "git.commit", "", "a commit, or a branch or tag as git.ref")
		case g.Commit != "":
			c.want(objectName.MatchString(g.Commit), "git.commit", g.Commit,
				"the 40 or 64 hexadecimal digits of a commit")
		default:
			c.want(len(g.Ref) <= 255 && refName.MatchString(g.Ref) &&
				path.Clean(g.Ref) == g.Ref && !strings.Contains(g.Ref, "..") &&
				!strings.HasSuffix(g.Ref, ".lock"), "git.ref", g.Ref,
				"the name of a branch or tag")
		}
		c.credentials("git", g.User, g.Secret, false)
		c.secretOverTLS("git", g.URL, g.Secret)
	}
	if a := s.Archive; a != nil {
		n++
		rest, file := strings.CutPrefix(a.URL, "file:///")
		c.want(schemed(a.URL, "https://", "http://") || file && urlRest.MatchString(rest),
			"archive.url", withoutUser(a.URL), "https://, http:// or file:/// without a user")
		c.want(sum.MatchString(a.SHA256), "archive.sha256", a.SHA256, "64 hexadecimal digits")
		c.credentials("archive", a.User, a.Secret, false)
		c.secretOverTLS("archive", a.URL, a.Secret)
	}
	if a := s.Artifact; a != nil {
		n++
		c.want(byDigest.MatchString(a.Reference), "artifact.reference", a.Reference,
			"repository@sha256:…")
		c.credentials("artifact", a.User, a.Secret, true)
	}
	if n > 1 {
		c.errs = append(c.errs, fmt.Errorf("source: %d are set: want one of rsync, git, archive, "+
			"artifact: %w", n, builder.ErrInvalid))
	}
	return errors.Join(c.errs...)
}

type check struct{ errs []error }

func (c *check) want(ok bool, field, text, wanted string) {
	if !ok {
		c.errs = append(c.errs, fmt.Errorf("source: %s: %s: want %s: %w", field, names.Quote(text),
			wanted, builder.ErrInvalid))
	}
}

func (c *check) credentials(kind, name, secret string, both bool) {
	c.want(name == "" || user.MatchString(name), kind+".user", name,
		"1 to 128 letters, digits, \".\", \"_\" and \"-\"")
	c.want(name == "" || secret != "", kind+".secret", secret, "one for the user")
	c.want(!both || name != "" || secret == "", kind+".user", name, "one for the secret")
	if secret != "" && !secretName.MatchString(secret) { // it may be the value: it is not shown
		c.want(false, kind+".secret", fmt.Sprintf("a name of %d bytes", len(secret)),
			"1 to 128 letters, digits, \".\", \"_\" and \"-\"")
	}
}

func (c *check) secretOverTLS(kind, url, secret string) {
	c.want(secret == "" || strings.HasPrefix(url, "https://"), kind+".secret", secret,
		"none, or a URL that starts with https://: others send it in the clear")
}

// schemed reports whether a URL has one of the schemes and no user, in which a password could be.
func schemed(url string, schemes ...string) bool {
	for _, s := range schemes {
		if rest, ok := strings.CutPrefix(url, s); ok {
			return urlRest.MatchString(rest) && !strings.HasPrefix(rest, "-") &&
				!strings.HasPrefix(rest, "/")
		}
	}
	return false
}

// withoutUser cuts the user, and with it a password, out of a URL, for an error.
func withoutUser(url string) string {
	scheme, rest, ok := strings.Cut(url, "://")
	if at := strings.LastIndex(rest, "@"); ok && at >= 0 {
		return scheme + "://***" + rest[at:]
	}
	return url
}
