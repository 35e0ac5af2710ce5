package promote

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sluice-deploy/sluice/internal/names"
)

// ConfigLabel is the image label that holds a Configuration as JSON.
const ConfigLabel = "io.github.sluice-deploy.envconfig"

// Configuration is the configuration files that an image carries, by environment.
type Configuration struct {
	// Environments maps each environment to its files, as paths relative to the root of the
	// container's file system. Files that all environments share stand in each of them.
	Environments map[string][]string
	// Required are the files that every environment must have.
	Required []string
	// Unread, when it is not empty, says which part of the image was not looked into and why, so
	// that a file that is missing here may still be in the image.
	Unread string
}

// ParseConfiguration reads the JSON of the label ConfigLabel, or of a manifest.json with the same
// keys. Keys that it does not know are left alone. When nothing is declared as required, the union
// of all environments' files is.
func ParseConfiguration(data []byte) (Configuration, error) {
	var doc struct {
		Version      int `json:"version"`
		Environments map[string]struct {
			Files []string `json:"files"`
		} `json:"environments"`
		Required []string `json:"required"`
	}
	if !utf8.Valid(data) {
		return Configuration{}, fmt.Errorf("configuration manifest: want UTF-8: %w", ErrInvalid)
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return Configuration{}, fmt.Errorf("configuration manifest: %w: %w", err, ErrInvalid)
	}
	if doc.Version != 1 {
		return Configuration{}, fmt.Errorf("configuration manifest: version %d: this program "+
			"reads version 1: %w",
			doc.Version, ErrInvalid)
	}
	c := Configuration{Environments: map[string][]string{}, Required: doc.Required}
	for environment, e := range doc.Environments {
		c.Environments[environment] = e.Files
	}
	for _, file := range slices.Concat(append(slices.Collect(maps.Values(c.Environments)),
		c.Required)...) {
		if !fs.ValidPath(file) || file == "." {
			return Configuration{}, fmt.Errorf("configuration manifest: file %s: want a clean "+
				"path relative to the root: %w",
				names.Quote(file), ErrInvalid)
		}
	}
	if len(c.Required) == 0 {
		c.Required = c.Union()
	}
	return c, nil
}

// Union returns every file that some environment has, sorted.
func (c Configuration) Union() []string {
	all := slices.Sorted(slices.Values(slices.Concat(
		slices.Collect(maps.Values(c.Environments))...)))
	return slices.Compact(all)
}

// Missing returns whether the image has configuration for environment at all, and the required
// files that it lacks, sorted.
func (c Configuration) Missing(environment string) (present bool, missing []string) {
	files, present := c.Environments[environment]
	for _, file := range c.Required {
		if !slices.Contains(files, file) {
			missing = append(missing, file)
		}
	}
	slices.Sort(missing)
	return present, slices.Compact(missing)
}

// ConfigSource reads the configuration that an image carries. promote/ociregistry has one that asks
// the registry and reads a few kilobytes of an image of any size.
type ConfigSource interface {
	Configuration(ctx context.Context, repository string, d Digest) (Configuration, error)
}

// ConfigGate lets a digest into an environment when the image has the configuration of that
// environment, so that it is refused here and does not stop at its start there. A rollback passes
// without a look into the registry: the content of a digest cannot have changed since it passed.
type ConfigGate struct {
	// Source must not be nil.
	Source ConfigSource
}

var _ Gate = ConfigGate{}

// Name returns "config".
func (ConfigGate) Name() string { return "config" }

// Validate reports a missing Source.
func (g ConfigGate) Validate(Pipeline) error {
	if g.Source == nil {
		var list problems
		list.add("Source: nil: want one")
		return list[0]
	}
	return nil
}

// Reads returns that it depends on the digest and the environment alone, and on Change.Fast.
func (ConfigGate) Reads() Reads { return ReadsHistory }

// Check implements Gate. The files of the refusal stand in Missing.
func (g ConfigGate) Check(ctx context.Context, c Change) error {
	if c.passes() {
		return nil
	}
	config, err := g.Source.Configuration(ctx, c.Repository, c.Digest)
	if err != nil {
		return fmt.Errorf("configuration of %s: %w", c.Image(), err)
	}
	present, missing := config.Missing(c.Environment)
	var reason string
	switch {
	case len(config.Environments) == 0:
		reason = fmt.Sprintf("%s %s (%s) carries no configuration for any environment", c.Cluster,
			c.Version, c.Digest.Short())
	case !present:
		reason = fmt.Sprintf("%s %s (%s) carries no configuration for %s, only for %s", c.Cluster,
			c.Version, c.Digest.Short(),
			c.Environment, strings.Join(slices.Sorted(maps.Keys(config.Environments)), ", "))
	case len(missing) > 0:
		reason = fmt.Sprintf("%s %s (%s) lacks configuration files for %s", c.Cluster, c.Version,
			c.Digest.Short(), c.Environment)
	default:
		return nil
	}
	if len(missing) > 0 {
		reason += ": missing " + strings.Join(missing, ", ")
	}
	reason += ": add the files, build a new version, and start again at the first environment"
	if config.Unread != "" {
		reason += " (" + config.Unread + ")"
	}
	return &Refusal{Reasons: []string{reason}, Missing: missing}
}
