package builds

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/internal/names"
)

// Policy rules several builds of one group.
type Policy string

// The policies.
const (
	// a group is no limit: the default
	Parallel Policy = ""
	// one build of the group at a time, in the order of submission
	Serial Policy = "serial"
	// a submission supersedes the group's builds that have not ended
	LatestOnly Policy = "latestOnly"
)

// Order asks for a build. It is kept in the journal, so it has no value of a secret.
type Order struct {
	// ID names the build: 1 to 63 letters, digits, ".", "_" and "-". Required. The same order again
	// is the same build.
	ID string `json:"id"`
	// Actor names the person or program that asks. Required.
	Actor string `json:"actor"`
	// Team shares the builders fairly: of the builds that can start, one of the team with the
	// fewest running goes first. The default is a team without a name.
	Team string `json:"team,omitempty"`
	// Group and Policy go together: Policy decides on the builds of one Group, a cluster's, say.
	Group  string `json:"group,omitempty"`
	Policy Policy `json:"policy,omitempty"`
	// Source is where the build context comes from. The default is Config.Context's own.
	Source Source `json:"source,omitzero"`
	// Dockerfile, Repository, Tag, ReplaceTag, Args and Labels are fields of builder.Request.
	Dockerfile string            `json:"dockerfile"`
	Repository string            `json:"repository"`
	Tag        string            `json:"tag,omitempty"`
	ReplaceTag bool              `json:"replaceTag,omitempty"`
	Args       map[string]string `json:"args,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	// Secrets are names. Config.Secrets knows the values, which are given to Config.Context and
	// masked in the log and in errors.
	Secrets []string `json:"secrets,omitempty"`
	// Deadline is how long one attempt may take. The default is one hour.
	Deadline time.Duration `json:"deadline,omitempty"`
	// Attempts is how often a build that fails for a retryable reason is carried out. An attempt
	// whose process ended does not count. The default is 1.
	Attempts int `json:"attempts,omitempty"`
}

// Source is where the build context comes from: at most one of the fields is set.
type Source struct {
	Rsync    *Rsync    `json:"rsync,omitempty"`
	Git      *Git      `json:"git,omitempty"`
	Archive  *Archive  `json:"archive,omitempty"`
	Artifact *Artifact `json:"artifact,omitempty"`
}

// Rsync is a directory of an rsync daemon.
type Rsync struct {
	// Host is a name or an address.
	Host string `json:"host"`
	// Port is 1 to 65535. The default is 873.
	Port int `json:"port,omitempty"`
	// Module is the daemon's, Path a path in it, "" for all of it.
	Module string `json:"module"`
	Path   string `json:"path,omitempty"`
}

// Git is a commit of a repository.
type Git struct {
	// URL starts with https://, ssh:// or git://.
	URL string `json:"url"`
	// Commit is the whole object name, 40 or 64 hexadecimal digits: a branch moves.
	Commit string `json:"commit"`
}

// Archive is a tar file, plain or compressed.
type Archive struct {
	// URL starts with https:// or http://.
	URL string `json:"url"`
	// SHA256 is the sum of the file as it is served, 64 hexadecimal digits.
	SHA256 string `json:"sha256"`
}

// Artifact is an OCI artifact.
type Artifact struct {
	// Reference is repository@sha256:….
	Reference string `json:"reference"`
}

const (
	defaultDeadline = time.Hour
	maxOrder        = 1 << 20 // bytes of an order as JSON
)

var (
	objectName = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
	sum        = regexp.MustCompile(`^[0-9a-f]{64}$`)
	byDigest   = regexp.MustCompile(`^[^@\s]+@sha256:[0-9a-f]{64}$`)
	module     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	host       = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`)
	secretName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,128}$`)
	urlRest    = regexp.MustCompile(`^[^\s\x00-\x1f\x7f@]+$`)
)

// Validate returns every problem of the order, joined, each wrapping builder.ErrInvalid, the
// problems that builder.Request.Validate finds included.
func (o Order) Validate() error {
	var errs []error
	bad := func(field string, err error) {
		errs = append(errs, fmt.Errorf("order: %s: %w: %w", field, err, builder.ErrInvalid))
	}
	if err := names.Task(o.ID); err != nil {
		bad("id", err)
	}
	if err := names.Actor(o.Actor); err != nil {
		bad("actor", err)
	}
	for field, text := range map[string]string{"team": o.Team, "group": o.Group} {
		if text == "" {
			continue
		}
		if err := names.Actor(text); err != nil {
			bad(field, fmt.Errorf("%s: want up to %d bytes without control characters",
				names.Quote(text), names.MaxActor))
		}
	}
	switch {
	case !slices.Contains([]Policy{Parallel, Serial, LatestOnly}, o.Policy):
		bad("policy", fmt.Errorf("%s: want serial, latestOnly or nothing",
			names.Quote(string(o.Policy))))
	case o.Policy != Parallel && o.Group == "":
		bad("group", fmt.Errorf("is empty: policy %s needs one", o.Policy))
	}
	if o.Deadline < 0 {
		bad("deadline", fmt.Errorf("%s: want 0 (default %s) or more", o.Deadline, defaultDeadline))
	}
	if o.Attempts < 0 || o.Attempts > 10 {
		bad("attempts", fmt.Errorf("%d: want 0 (default 1) to 10", o.Attempts))
	}
	for _, s := range o.Secrets {
		if !secretName.MatchString(s) {
			bad("secrets", fmt.Errorf("a name of %d bytes: want 1 to 128 letters, digits, "+
				"\".\", \"_\" and \"-\"", len(s)))
		}
	}
	o.Source.validate(bad)
	r := o.request()
	if err := r.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("order: %w", err))
	}
	if data, err := json.Marshal(o); err != nil || len(data) > maxOrder {
		bad("size", fmt.Errorf("%d bytes as JSON: want at most %d", len(data), maxOrder))
	}
	return errors.Join(errs...)
}

func (s Source) validate(bad func(field string, err error)) {
	n := 0
	want := func(ok bool, field, text, wanted string) {
		if !ok {
			bad("source: "+field, fmt.Errorf("%s: want %s", names.Quote(text), wanted))
		}
	}
	if r := s.Rsync; r != nil {
		n++
		_, err := netip.ParseAddr(r.Host)
		want(err == nil || len(r.Host) <= 253 && host.MatchString(r.Host), "rsync.host", r.Host,
			"a host name or an address")
		want(r.Port >= 0 && r.Port <= 65535, "rsync.port", fmt.Sprint(r.Port),
			"0 (default 873) to 65535")
		want(module.MatchString(r.Module), "rsync.module", r.Module,
			"letters, digits, \".\", \"_\" and \"-\"")
		want(r.Path == "" || path.Clean("/"+r.Path) == "/"+strings.TrimSuffix(r.Path, "/") &&
			!strings.ContainsAny(r.Path, "\x00\n\r*?[\\"), "rsync.path", r.Path,
			"a path in the module, without . and .. and without patterns")
	}
	if g := s.Git; g != nil {
		n++
		want(schemed(g.URL, "https://", "ssh://", "git://"), "git.url", withoutUser(g.URL),
			"https://, ssh:// or git:// without a password")
		want(objectName.MatchString(g.Commit), "git.commit", g.Commit,
			"the 40 or 64 hexadecimal digits of a commit")
	}
	if a := s.Archive; a != nil {
		n++
		want(schemed(a.URL, "https://", "http://"), "archive.url", withoutUser(a.URL),
			"https:// or http:// without a password")
		want(sum.MatchString(a.SHA256), "archive.sha256", a.SHA256, "64 hexadecimal digits")
	}
	if a := s.Artifact; a != nil {
		n++
		want(byDigest.MatchString(a.Reference), "artifact.reference", a.Reference,
			"repository@sha256:…")
	}
	if n > 1 {
		bad("source", fmt.Errorf("%d are set: want one of rsync, git, archive, artifact", n))
	}
}

// schemed reports whether a URL has one of the schemes and no user, in which a password could be.
func schemed(url string, schemes ...string) bool {
	for _, s := range schemes {
		if rest, ok := strings.CutPrefix(url, s); ok {
			return urlRest.MatchString(rest) || s == "ssh://" &&
				urlRest.MatchString(strings.Replace(rest, "@", "", 1)) &&
				!strings.Contains(strings.Split(rest, "@")[0], ":")
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

// request is the order for an engine, without its context and log.
func (o Order) request() builder.Request {
	return builder.Request{Dockerfile: []byte(o.Dockerfile), Repository: o.Repository, Tag: o.Tag,
		ReplaceTag: o.ReplaceTag, Args: o.Args, Labels: o.Labels}
}

// sum names the content of the order.
func (o Order) sum() string {
	o.Actor = "" // whoever asks again asks for the same build
	data, _ := json.Marshal(o)
	s := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(s[:])
}
