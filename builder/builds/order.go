package builds

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/source"
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
	Source source.Source `json:"source,omitzero"`
	// Dockerfile, Repository, Tag, ReplaceTag, Args, Labels and Platforms are fields of
	// builder.Request.
	Dockerfile string            `json:"dockerfile"`
	Repository string            `json:"repository"`
	Tag        string            `json:"tag,omitempty"`
	ReplaceTag bool              `json:"replaceTag,omitempty"`
	Args       map[string]string `json:"args,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	Platforms  []string          `json:"platforms,omitempty"`
	// Secrets are names, besides the names in Source. Config.Secrets knows the values, which are
	// given to Config.Context and masked in the log and in errors.
	Secrets []string `json:"secrets,omitempty"`
	// Deadline is how long one attempt may take. The default is one hour.
	Deadline time.Duration `json:"deadline,omitempty"`
	// Attempts is how often a build that fails for a retryable reason is carried out. An attempt
	// whose process ended does not count. The default is 1.
	Attempts int `json:"attempts,omitempty"`
}

const (
	defaultDeadline = time.Hour
	maxOrder        = 1 << 20 // bytes of an order as JSON
)

var secretName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,128}$`)

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
	if err := o.Source.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("order: %w", err))
	}
	r := o.request()
	if err := r.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("order: %w", err))
	}
	if data, err := json.Marshal(o); err != nil || len(data) > maxOrder {
		bad("size", fmt.Errorf("%d bytes as JSON: want at most %d", len(data), maxOrder))
	}
	return errors.Join(errs...)
}

// request is the order for an engine, without its context and log.
func (o Order) request() builder.Request {
	return builder.Request{ID: o.ID, Dockerfile: []byte(o.Dockerfile), Repository: o.Repository,
		Tag: o.Tag, ReplaceTag: o.ReplaceTag, Args: o.Args, Labels: o.Labels,
		Platforms: o.Platforms}
}

// sum names the content of the order.
func (o Order) sum() string {
	o.Actor = "" // whoever asks again asks for the same build
	data, _ := json.Marshal(o)
	s := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(s[:])
}
