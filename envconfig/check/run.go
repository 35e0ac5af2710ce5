package check

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/sluice-deploy/sluice/envconfig"
)

// Rules of the findings.
const (
	// an environment lacks a file that others have
	RuleFile = "file"
	// a file breaks the rules of its format
	RuleSyntax = "syntax"
	// an environment lacks a key that others have
	RuleKey = "key"
	// a key's value is of another type than elsewhere
	RuleType = "type"
	// an environment that users see has a value that was never filled in
	RulePlaceholder = "placeholder"
	// a value of one environment occurs in another
	RuleLeak = "leak"
	// a secret stands there in plain text
	RuleSecret = "secret"
	// permission bits that are too wide, or differ between environments
	RuleMode = "mode"
	// a key violates a rule of the configuration
	RuleSchema = "schema"
	// the entrypoint or a start script will not pass signals on
	RuleCommand = "command"
	// an entry of the allow-list has expired or accepts nothing
	RuleAllow = "allow"
	// the source directory has a link, a special file, a name or colliding targets that no start
	// accepts
	RuleSource = "source"
)

// Rules returns the names of all rules.
func Rules() []string {
	return []string{RuleFile, RuleSyntax, RuleKey, RuleType, RulePlaceholder, RuleLeak, RuleSecret,
		RuleMode, RuleSchema, RuleCommand, RuleAllow, RuleSource}
}

// Finding is one thing that is wrong. It holds no value.
type Finding struct {
	Rule        string `json:"rule"`
	Environment string `json:"environment,omitempty"`
	Path        string `json:"path,omitempty"`
	Source      string `json:"source,omitempty"`
	Line        int    `json:"line,omitempty"`
	Key         string `json:"key,omitempty"`
	Message     string `json:"message"`
}

// String is the finding on one line.
func (f Finding) String() string {
	var b strings.Builder
	b.WriteString(cmp.Or(f.Source, f.Path, "-"))
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d", f.Line)
	}
	fmt.Fprintf(&b, ": %s", f.Rule)
	if f.Environment != "" {
		fmt.Fprintf(&b, ": %s", f.Environment)
	}
	if f.Key != "" {
		fmt.Fprintf(&b, ": %s", f.Key)
	}
	fmt.Fprintf(&b, ": %s", f.Message)
	return b.String()
}

// Report is the result of [Run].
type Report struct {
	// Findings that are not accepted, in a fixed order.
	Findings []Finding `json:"findings"`
	// Allowed counts the findings that the allow-list accepts.
	Allowed int `json:"allowed"`
	// Baselined counts the findings that a [Baseline] had, Mended counts the entries of a baseline
	// that are no longer found.
	Baselined int `json:"baselined,omitempty"`
	Mended    int `json:"mended,omitempty"`
	// Environments, Files and Keys count the inputs of the check.
	Environments int `json:"environments"`
	Files        int `json:"files"`
	Keys         int `json:"keys"`
}

// Set is the loaded configuration of all environments.
type Set struct {
	manifest *envconfig.Manifest
	// files by environment and target path.
	files map[string]map[string]*File
}

// File is one source as the parsers see it; environments that share it share the File.
type File struct {
	envconfig.File
	// Settings in the order of the file; nil when the format is not known.
	Settings []Setting

	format  string
	syntax  []*SyntaxError
	partial bool // not all keys are known
	tokens  []token
	lines   map[int]bool // in which a setting is a secret
}

// Load reads and parses every file of the manifest once. The error names a file that could not be
// read; syntax errors are findings of [Run], not errors.
func Load(fsys fs.FS, m *envconfig.Manifest) (*Set, error) {
	s := &Set{manifest: m, files: map[string]map[string]*File{}}
	parsed := map[string]*File{}
	for _, name := range m.Names() {
		s.files[name] = map[string]*File{}
		for _, f := range m.Environments[name].Files {
			if parsed[f.Source] == nil {
				p, err := load(fsys, f)
				if err != nil {
					return nil, err
				}
				parsed[f.Source] = p
			}
			s.files[name][f.Path] = parsed[f.Source]
		}
	}
	return s, nil
}

func load(fsys fs.FS, f envconfig.File) (*File, error) {
	out := &File{File: f, format: Format(f.Path)}
	src, err := fsys.Open(f.Source)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	// room to see the end, too
	data := bytes.NewBuffer(make([]byte, 0, min(f.Size, maxFile)+bytes.MinRead))
	if _, err := data.ReadFrom(io.LimitReader(src, maxFile+1)); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Source, err)
	}
	out.tokens = tokensIn(data.Bytes())
	out.Settings, out.syntax, out.partial = read(out.format, data.Bytes())
	out.judge()
	return out, nil
}

// Run checks all environments. now decides which entries of the allow-list have expired. The error
// names a file that could not be read; every other problem is a finding.
func Run(fsys fs.FS, m *envconfig.Manifest, c Config, now time.Time) (Report, error) {
	s, err := Load(fsys, m)
	if err != nil {
		return Report{}, err
	}
	return s.Check(c, now, nil), nil
}

// Refused returns the report on a source directory that [envconfig.Scan] has refused with an error
// that matches [envconfig.ErrInvalid]: until that is mended nothing else can be looked at.
func Refused(err error) Report {
	return Report{Findings: []Finding{{Rule: RuleSource, Message: err.Error()}}}
}

// Check is [Run] on a loaded set. More are findings from elsewhere, such as those of package start,
// for the allow-list to judge.
func (s *Set) Check(c Config, now time.Time, more []Finding) Report {
	r := Report{Environments: len(s.files)}
	for _, files := range s.files {
		r.Files += len(files)
		for _, f := range files {
			r.Keys += len(f.Settings)
		}
	}
	all := slices.Concat(more, s.checkFiles(), s.checkKeys(), s.checkValues(),
		s.checkLeaks(c.Owned), s.checkSchema(c.Keys))
	used := make([]bool, len(c.Allow))
	for _, f := range all {
		accepted := false
		for i := range c.Allow {
			if c.Allow[i].accepts(&f) && !c.Allow[i].expired(now) {
				used[i], accepted = true, true
			}
		}
		if accepted {
			r.Allowed++
		} else {
			r.Findings = append(r.Findings, f)
		}
	}
	for i, a := range c.Allow {
		switch {
		case a.expired(now):
			r.Findings = append(r.Findings, Finding{Rule: RuleAllow, Source: ConfigName,
				Message: fmt.Sprintf("allow[%d] for %s expired after %s (%s)", i, a.Rule, a.Until,
					a.Reason)})
		case !used[i]:
			r.Findings = append(r.Findings, Finding{Rule: RuleAllow, Source: ConfigName,
				Message: fmt.Sprintf("allow[%d] for %s accepts nothing: remove it", i, a.Rule)})
		}
	}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Environment, b.Environment),
			cmp.Compare(a.Line, b.Line), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Rule, b.Rule))
	})
	r.Findings = slices.Compact(r.Findings)
	return r
}

// All gives every file with the environment that it belongs to, sorted by path and environment.
func (s *Set) All() iter.Seq2[string, *File] {
	return func(yield func(string, *File) bool) {
		for _, p := range s.paths() {
			for _, name := range s.manifest.Names() {
				if f := s.files[name][p]; f != nil && !yield(name, f) {
					return
				}
			}
		}
	}
}

// WellFormed reports whether nothing in the file breaks the rules of its format.
func (f *File) WellFormed() bool { return len(f.syntax) == 0 && !f.partial }

// Manifest returns the manifest that the set was loaded from.
func (s *Set) Manifest() *envconfig.Manifest { return s.manifest }

// paths are the target paths of all environments, sorted.
func (s *Set) paths() []string {
	seen := map[string]bool{}
	for _, files := range s.files {
		for name := range files {
			seen[name] = true
		}
	}
	out := make([]string, 0, len(seen))
	for name := range seen {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

func (s *Set) checkFiles() []Finding {
	var out []Finding
	for _, name := range s.manifest.Names() {
		for _, p := range s.manifest.Missing(name) {
			out = append(out, Finding{Rule: RuleFile, Environment: name, Path: p,
				Message: "the file is missing"})
		}
		if len(s.files[name]) == 0 {
			out = append(out, Finding{Rule: RuleFile, Environment: name,
				Message: "the environment has no files"})
		}
	}
	out = append(out, s.checkDirectories()...)
	for _, p := range s.paths() {
		modes := map[fs.FileMode][]string{}
		for _, name := range s.manifest.Names() {
			f := s.files[name][p]
			if f == nil {
				continue
			}
			modes[f.Mode] = append(modes[f.Mode], name)
			if f.Mode&0o002 != 0 {
				out = append(out, Finding{Rule: RuleMode, Environment: name, Path: p,
					Source: f.Source, Message: fmt.Sprintf("mode %04o lets everyone write",
						f.Mode)})
			}
			for _, syntax := range f.syntax {
				out = append(out, Finding{Rule: RuleSyntax, Environment: name, Path: p,
					Source: f.Source, Line: syntax.Line, Message: syntax.Msg})
			}
			for _, t := range f.tokens {
				if !f.secretAt(t.line) {
					out = append(out, Finding{Rule: RuleSecret, Environment: name, Path: p,
						Source: f.Source, Line: t.line,
						Message: "holds " + t.what +
							": everyone who can pull the image can read it"})
				}
			}
		}
		if len(modes) > 1 {
			out = append(out, Finding{Rule: RuleMode, Path: p, Message: "modes differ: " +
				describe(modes)})
		}
	}
	return out
}

// checkDirectories finds paths that are a file in one environment and a directory in another.
func (s *Set) checkDirectories() []Finding {
	var out []Finding
	seen := map[string]bool{}
	for _, below := range s.paths() {
		for dir := path.Dir(below); dir != "." && !seen[dir]; dir = path.Dir(dir) {
			seen[dir] = true
			for _, name := range s.manifest.Names() {
				if f := s.files[name][dir]; f != nil {
					out = append(out, Finding{Rule: RuleFile, Environment: name, Path: dir,
						Source: f.Source,
						Message: "is a directory in another environment: where the one has been " +
							"put " +
							"in place, the other cannot be"})
				}
			}
		}
	}
	return out
}

func describe(modes map[fs.FileMode][]string) string {
	var parts []string
	for mode, names := range modes {
		parts = append(parts, fmt.Sprintf("%04o in %s", mode, strings.Join(names, ", ")))
	}
	slices.Sort(parts)
	return strings.Join(parts, "; ")
}
