package check

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"time"

	"github.com/sluice-deploy/sluice/envconfig"
	"github.com/sluice-deploy/sluice/internal/strictjson"
)

// ConfigName is the optional file in the source directory.
const ConfigName = "envconfig-check.json"

// Config is the content of envconfig-check.json. The zero value checks everything that needs no
// declaration.
type Config struct {
	// Allow lists the findings that are accepted, each with a reason.
	Allow []Allow `json:"allow,omitempty"`
	// Keys holds the rules for single keys.
	Keys []KeyRule `json:"keys,omitempty"`
	// Schemas assigns JSON Schemas to files. Package schema validates the files against them.
	Schemas []SchemaRule `json:"schemas,omitempty"`
	// Owned gives, by environment, patterns as in [path.Match] for values that must occur in that
	// environment only, e.g. {"production": ["*.prod.example.com", "orders-live"]}. They are held
	// to every word of a value.
	Owned map[string][]string `json:"owned,omitempty"`
}

// Allow accepts findings. An empty field matches all; Path and Key are patterns as in [path.Match],
// where "*" in Path does not cross a slash.
type Allow struct {
	Rule         string   `json:"rule"`
	Path         string   `json:"path,omitempty"`
	Key          string   `json:"key,omitempty"`
	Environments []string `json:"environments,omitempty"`
	// Reason is for the next reader and required.
	Reason string `json:"reason"`
	// Until is the last day, as 2006-01-02, on which the entry counts, and required. After it the
	// entry is a finding itself.
	Until string `json:"until"`
}

// KeyRule is a rule for the value of a key.
type KeyRule struct {
	// Path is a pattern as in [path.Match] for the target path of the files that it is about.
	Path string `json:"path"`
	// Key is the key, exactly.
	Key string `json:"key"`
	// Type is string, number, bool, null or list. The default is any.
	Type Kind `json:"type,omitempty"`
	// Required keys must be there. The default is false.
	Required bool `json:"required,omitempty"`
	// Enum lists the values that are allowed. The default is any.
	Enum []string `json:"enum,omitempty"`
	// Pattern is a regular expression that the whole value must match. The default is none.
	Pattern string `json:"pattern,omitempty"`
	// Environments lists the environments that the rule applies to. The default is all.
	Environments []string `json:"environments,omitempty"`

	compiled *regexp.Regexp // Pattern; nil before Validate
}

// regexp returns the regular expression that the whole value must match.
func (k *KeyRule) regexp() (*regexp.Regexp, error) {
	if k.compiled != nil {
		return k.compiled, nil
	}
	return regexp.Compile("^(?:" + k.Pattern + ")$")
}

// admits reports whether the value matches Pattern; none matches a malformed one.
func (k *KeyRule) admits(value string) bool {
	if k.Pattern == "" {
		return true
	}
	pattern, err := k.regexp()
	return err == nil && pattern.MatchString(value)
}

// SchemaRule assigns a JSON Schema to files.
type SchemaRule struct {
	// Path is a pattern as in [path.Match] for the target path of the files that it is about, which
	// are YAML, JSON or TOML.
	Path string `json:"path"`
	// Schema is the path of the JSON Schema in the source directory, e.g. "schemas/app.json".
	Schema string `json:"schema"`
	// Environments lists the environments that the rule applies to. The default is all.
	Environments []string `json:"environments,omitempty"`
}

// About reports whether the rule is about the file at that target path in that environment.
func (r *SchemaRule) About(environment, path string) bool {
	return about(r.Environments, environment) && matches(r.Path, path)
}

// ErrInvalid is matched by the errors of [ParseConfig].
var ErrInvalid = envconfig.ErrInvalid

// ParseConfig reads envconfig-check.json. Every problem is reported at once.
func ParseConfig(data []byte) (Config, error) {
	var c Config
	if err := strictjson.Decode(data, &c); err != nil {
		return Config{}, fmt.Errorf("%s: %w: %w", ConfigName, err, ErrInvalid)
	}
	if err := c.Validate(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// Validate returns every problem of the configuration at once; they match [ErrInvalid].
// [ParseConfig] has called it. A configuration is for several goroutines after it.
func (c *Config) Validate() error {
	var problems []error
	bad := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("%s: %s: %w", ConfigName,
			fmt.Sprintf(format, args...), ErrInvalid))
	}
	for i, a := range c.Allow {
		if a.Reason == "" {
			bad("allow[%d] has no reason", i)
		}
		if _, err := time.Parse(time.DateOnly, a.Until); err != nil {
			bad("allow[%d]: until must be a day such as 2027-01-31", i)
		}
		if !slices.Contains(Rules(), a.Rule) {
			bad("allow[%d]: rule %q is none of %v", i, a.Rule, Rules())
		}
		if !validPattern(a.Path) || !validPattern(a.Key) {
			bad("allow[%d]: malformed pattern", i)
		}
	}
	for i := range c.Keys {
		k := &c.Keys[i]
		if k.Path == "" || k.Key == "" || !validPattern(k.Path) {
			bad("keys[%d] needs a well-formed path and a key", i)
		}
		if !slices.Contains([]Kind{"", String, Number, Bool, Null, List}, k.Type) {
			bad("keys[%d]: type %q is none of string, number, bool, null, list", i, k.Type)
		}
		k.compiled = nil // Pattern may have changed
		var err error
		if k.compiled, err = k.regexp(); err != nil {
			bad("keys[%d]: pattern: %v", i, err)
		}
	}
	for i, r := range c.Schemas {
		if r.Path == "" || !validPattern(r.Path) || !fs.ValidPath(r.Schema) {
			bad("schemas[%d] needs a well-formed path, and a schema by its path in the source "+
				"directory", i)
		}
	}
	for name, patterns := range c.Owned {
		if !slices.ContainsFunc(patterns, func(string) bool {
			return true
		}) || slices.ContainsFunc(patterns, func(p string) bool { return !validPattern(p) }) {
			bad("owned.%s needs well-formed patterns", name)
		}
	}
	return errors.Join(problems...)
}

func validPattern(pattern string) bool {
	_, err := path.Match(pattern, "")
	return err == nil
}

func matches(pattern, name string) bool {
	if pattern == "" {
		return true
	}
	ok, _ := path.Match(pattern, name)
	return ok
}

func about(environments []string, environment string) bool {
	return len(environments) == 0 || slices.Contains(environments, environment)
}

// expired reports whether the last day of the entry is over.
func (a *Allow) expired(now time.Time) bool {
	last, err := time.Parse(time.DateOnly, a.Until)
	return err != nil || !now.Before(last.AddDate(0, 0, 1))
}

func (a *Allow) accepts(f *Finding) bool {
	return a.Rule == f.Rule && matches(a.Path, f.Path) && matches(a.Key, f.Key) &&
		about(a.Environments, f.Environment)
}
