package envconfig

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strconv"
)

const (
	// LabelKey is the key of the OCI image label that says which environments an image has configuration for.
	LabelKey = "io.github.sluice-deploy.envconfig"
	// ManifestName is the file in the source folder that holds the manifest.
	ManifestName = "manifest.json"
	// manifestVersion is the only version there is; a later one is refused, since its rules are not known here.
	manifestVersion = 1
	// maxManifest bounds the bytes read from a manifest: 100,000 files of four environments fit.
	maxManifest = 128 << 20
)

// Manifest says which environments a source folder has and which files belong to each. It is immutable after [Scan] or
// [ParseManifest] and may be read by several goroutines.
type Manifest struct {
	// Environments by name.
	Environments map[string]*Environment
	// Required are the target paths that every environment must have: those of the [Spec] or, where it has none, the
	// union of all environments' files. Sorted.
	Required []string
	// Spec is what envconfig.json said.
	Spec Spec

	// head and digest are set where no more than the head of manifest.json was read; the environments have no files then.
	head   *head
	digest string
}

// Environment is the set of files that one environment puts in place, those of _base included.
type Environment struct {
	// Name as it is selected, e.g. "production".
	Name string
	// Files sorted by Path.
	Files []File

	digest string // where no more than the head of manifest.json was read
}

// File is one file of one environment.
type File struct {
	// Path of the target, relative to the root, slash-separated.
	Path string `json:"path"`
	// Source is the path of the file in the source folder, e.g. "envs/_base/etc/app.conf".
	Source string `json:"source"`
	// SHA256 of the source's content, in hexadecimal.
	SHA256 string `json:"sha256"`
	// Size of the source in bytes.
	Size int64 `json:"size"`
	// Mode is what the target's permission bits will be, whatever the umask.
	Mode fs.FileMode `json:"-"`
	// Action says how the file gets to its target. The default is [Copy].
	Action Action `json:"action,omitempty"`
	// Keys are the names of the settings in the file, without values, sorted; nil when they were not collected.
	Keys []string `json:"keys,omitempty"`

	modeGiven bool
}

// octalFile is a File as manifest.json shows it, with the mode in the form that people know.
type octalFile struct {
	plainFile
	Mode string `json:"mode"`
}

type plainFile File

// MarshalJSON writes the mode in octal.
func (f File) MarshalJSON() ([]byte, error) {
	return json.Marshal(octalFile{plainFile(f), fmt.Sprintf("%04o", f.Mode)})
}

// UnmarshalJSON reads what [File.MarshalJSON] wrote.
func (f *File) UnmarshalJSON(data []byte) error {
	var o octalFile
	if err := json.Unmarshal(data, &o); err != nil {
		return err
	}
	mode, err := strconv.ParseUint(o.Mode, 8, 9)
	if err != nil {
		return fmt.Errorf("mode %s of %q is not octal permission bits", quote(o.Mode), o.Path)
	}
	*f = File(o.plainFile)
	f.Mode = fs.FileMode(mode)
	return nil
}

// Names returns the environments' names, sorted.
func (m *Manifest) Names() []string { return slices.Sorted(maps.Keys(m.Environments)) }

// Paths returns the target paths of the environment, sorted.
func (e *Environment) Paths() []string {
	paths := make([]string, len(e.Files))
	for i, f := range e.Files {
		paths[i] = f.Path
	}
	return paths
}

// Digest identifies what the environment puts in place: "sha256:" and 64 hexadecimal digits. Two environments with equal
// digests put the same bytes with the same modes into the same places.
func (e *Environment) Digest() string {
	if e.digest != "" {
		return e.digest
	}
	h := sha256.New()
	for _, f := range e.Files {
		fmt.Fprintf(h, "%q %s %o %s\n", f.Path, f.SHA256, f.Mode, f.Action)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// Digest identifies the whole: every environment's files, the required ones and the spec. Keys have no part in it.
func (m *Manifest) Digest() string {
	if m.digest != "" {
		return m.digest
	}
	h := sha256.New()
	fmt.Fprintf(h, "envconfig %d\n", manifestVersion)
	for _, name := range m.Names() {
		fmt.Fprintf(h, "%s %s\n", name, m.Environments[name].Digest())
		for _, f := range m.Environments[name].Files {
			fmt.Fprintf(h, "%q\n", f.Source)
		}
	}
	spec, _ := json.Marshal(m.Spec)
	fmt.Fprintf(h, "%q\n%s\n", m.Required, spec)
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// wire is the form of manifest.json. The label has the same keys and lacks the fields marked omitempty.
type wire struct {
	Version      int                        `json:"version"`
	Digest       string                     `json:"digest"`
	Spec         *Spec                      `json:"spec,omitempty"`
	Pointer      *head                      `json:"pointer,omitempty"` // before the long part
	Environments map[string]wireEnvironment `json:"environments"`
	Required     []string                   `json:"required"`
}

type wireEnvironment struct {
	Digest  string   `json:"digest,omitempty"`
	Files   []string `json:"files"`
	Entries []File   `json:"entries,omitempty"`
}

func (m *Manifest) wire(full bool) wire {
	w := wire{Version: manifestVersion, Digest: m.Digest(), Environments: map[string]wireEnvironment{}, Required: m.Required}
	if w.Required == nil {
		w.Required = []string{}
	}
	for name, env := range m.Environments {
		e := wireEnvironment{Files: env.Paths()}
		if full {
			e.Digest, e.Entries = env.Digest(), env.Files
		}
		w.Environments[name] = e
	}
	if full {
		w.Spec, w.Pointer = &m.Spec, newHead(m)
	}
	return w
}

// JSON returns the content of manifest.json. Equal manifests give equal bytes.
func (m *Manifest) JSON() []byte {
	data, _ := json.MarshalIndent(m.wire(true), "", " ") // strings, numbers and maps of them: cannot fail
	return append(data, '\n')
}

// Label returns the OCI image label that says which environments the image has files for: the version, the digest, each
// environment's target paths and the required ones, as JSON on one line.
func (m *Manifest) Label() (key, value string) {
	data, _ := json.Marshal(m.wire(false))
	return LabelKey, string(data)
}

// ParseManifest reads what [Manifest.JSON] wrote. The error matches [ErrInvalid] when data is anything else: cut off,
// changed by hand so that the digest no longer fits, or of a version that is not known here.
func ParseManifest(data []byte) (*Manifest, error) {
	var w wire
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&w); err != nil {
		return nil, invalid(ManifestName, "%w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, invalid(ManifestName, "data after the end at byte %d", dec.InputOffset())
	}
	if w.Version != manifestVersion {
		return nil, invalid(ManifestName, "version %d, this envconfig knows version %d", w.Version, manifestVersion)
	}
	m := &Manifest{Environments: map[string]*Environment{}, Required: w.Required}
	if w.Spec != nil {
		m.Spec = *w.Spec
	}
	for name, e := range w.Environments {
		m.Environments[name] = &Environment{Name: name, Files: e.Entries}
	}
	if err := m.validate(); err != nil {
		return nil, err
	}
	if got := m.Digest(); got != w.Digest {
		return nil, invalid(ManifestName, "its content has the digest %s and it says %s: write it anew with envconfig manifest", got, quote(w.Digest))
	}
	return m, nil
}

// complete reports which files env lacks.
func (m *Manifest) complete(env *Environment) error {
	if len(env.Files) == 0 && m.head == nil {
		return fmt.Errorf("environment %q: %w: no files in envs/%s", env.Name, ErrIncomplete, env.Name)
	}
	if missing := m.lacks(env); len(missing) > 0 {
		return fmt.Errorf("environment %q: %w: required files missing: %s", env.Name, ErrIncomplete, list(missing))
	}
	return nil
}

// lacks are the files that the spec requires and env does not have.
func (m *Manifest) lacks(env *Environment) []string {
	switch {
	case m.head != nil:
		return m.head.Missing[env.Name]
	case len(m.Spec.Required) > 0:
		return m.Missing(env.Name)
	}
	return nil
}

// Missing returns the required files that the environment lacks, sorted; all of them when there is no such environment.
func (m *Manifest) Missing(environment string) []string {
	var have []string
	if env := m.Environments[environment]; env != nil {
		have = env.Paths()
	}
	var missing []string
	for _, path := range m.Required {
		if _, ok := slices.BinarySearch(have, path); !ok {
			missing = append(missing, path)
		}
	}
	return missing
}
