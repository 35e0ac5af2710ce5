package envconfig

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io/fs"
	"maps"
	"slices"
	"strconv"
)

const (
	// LabelKey is the key of the OCI image label that says which environments an image has
	// configuration for.
	LabelKey = "io.github.sluice-deploy.envconfig"
	// ManifestName is the file in the source directory that holds the manifest.
	ManifestName = "manifest.json"
	// manifestVersion is the only version there is; a later one is refused, since its rules are not
	// known here.
	manifestVersion = 1
	// maxManifest bounds the bytes read from a manifest: 100,000 files of four environments fit.
	maxManifest = 128 << 20
)

// Manifest lists the environments of a source directory and the files of each. It is immutable
// after [Scan] or [ParseManifest] and may be read by several goroutines.
type Manifest struct {
	// Environments by name.
	Environments map[string]*Environment
	// Required are the target paths that every environment must have: those of the [Spec] or, where
	// it has none, the union of all environments' files. Sorted.
	Required []string
	// Spec is the content of envconfig.json.
	Spec Spec

	// head is set where no more than the head of manifest.json was read; the environments have no
	// files then.
	head *head
	// digest is set where it was read and held to the content.
	digest string
	// spec is the Spec as manifest.json has it, without blanks; empty where it was not read from
	// there.
	spec []byte
}

// Environment is the set of files that one environment puts in place, those of _base included.
type Environment struct {
	// Name as it is selected, e.g. "production".
	Name string
	// Files sorted by Path.
	Files []File

	digest string // as in Manifest
}

// File is one file of one environment.
type File struct {
	// Path of the target, relative to the root, slash-separated.
	Path string `json:"path"`
	// Source is the path of the file in the source directory, e.g. "envs/_base/etc/app.conf".
	Source string `json:"source"`
	// SHA256 of the source's content, in hexadecimal.
	SHA256 string `json:"sha256"`
	// Size of the source in bytes.
	Size int64 `json:"size"`
	// Mode is the target's permission bits, independent of the umask.
	Mode fs.FileMode `json:"-"`
	// Action says how the file gets to its target. The default is [Copy].
	Action Action `json:"action,omitempty"`
	// Keys are the names of the settings in the file, without values, sorted; nil when they were
	// not collected.
	Keys []string `json:"keys,omitempty"`

	modeGiven bool
}

// MarshalJSON writes the mode in octal, as people know it.
func (f File) MarshalJSON() ([]byte, error) {
	type plain File
	return json.Marshal(struct {
		plain
		Mode string `json:"mode"`
	}{plain(f), fmt.Sprintf("%04o", f.Mode)})
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

// Digest identifies the files that the environment puts in place: "sha256:" and 64 hexadecimal
// digits. Two environments with equal digests put the same bytes with the same modes into the same
// places.
func (e *Environment) Digest() string {
	if e.digest != "" {
		return e.digest
	}
	d := newDigest()
	for i := range e.Files {
		f := &e.Files[i]
		b := append(appendQuote(d.line(), f.Path), ' ')
		b = append(append(b, f.SHA256...), ' ')
		b = append(strconv.AppendUint(b, uint64(f.Mode), 8), ' ')
		d.add(append(append(b, f.Action...), '\n'))
	}
	return d.text()
}

// Digest identifies the whole: every environment's files, the required ones and the spec. Keys have
// no part in it.
func (m *Manifest) Digest() string {
	if m.digest != "" {
		return m.digest
	}
	d := newDigest()
	d.add(append(strconv.AppendInt(append(d.line(), "envconfig "...), manifestVersion, 10), '\n'))
	for _, name := range m.Names() {
		env := m.Environments[name]
		d.add(append(append(append(append(d.line(), name...), ' '), env.Digest()...), '\n'))
		for i := range env.Files {
			d.add(append(appendQuote(d.line(), env.Files[i].Source), '\n'))
		}
	}
	d.add(append(d.line(), '['))
	for i, p := range m.Required {
		b := d.line()
		if i > 0 {
			b = append(b, ' ')
		}
		d.add(appendQuote(b, p))
	}
	spec := m.spec
	if spec == nil {
		spec, _ = json.Marshal(m.Spec)
	}
	d.add(append(append(append(d.line(), "]\n"...), spec...), '\n'))
	return d.text()
}

// digest is a SHA-256 of lines, which need not be in memory all at once.
type digest struct {
	hash.Hash
	buffer []byte
}

func newDigest() *digest { return &digest{Hash: sha256.New(), buffer: make([]byte, 0, 512)} }

// line is where the next line may be put together.
func (d *digest) line() []byte { return d.buffer[:0] }

func (d *digest) add(line []byte) {
	d.buffer = line
	_, _ = d.Write(line) // never fails
}

// appendQuote is [strconv.AppendQuote], for which there is mostly nothing to do.
func appendQuote(b []byte, s string) []byte {
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			return strconv.AppendQuote(b, s)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

func (d *digest) text() string {
	const algorithm = "sha256:"
	var text [len(algorithm) + 2*sha256.Size]byte
	hex.Encode(text[copy(text[:], algorithm):], d.Sum(d.line()))
	return string(text[:])
}

// wire is the form of manifest.json. The label has the same keys and lacks the fields marked
// omitempty.
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

// short returns the form of the label before [wire.brief].
func (m *Manifest) short() wire {
	w := wire{Version: manifestVersion, Digest: m.Digest(),
		Environments: map[string]wireEnvironment{}, Required: m.Required}
	if w.Required == nil {
		w.Required = []string{}
	}
	for name, env := range m.Environments {
		w.Environments[name] = wireEnvironment{Files: env.Paths()}
	}
	return w
}

// full returns the form of manifest.json.
func (m *Manifest) full() wire {
	w := m.short()
	for name, env := range m.Environments {
		w.Environments[name] = wireEnvironment{env.Digest(), w.Environments[name].Files, env.Files}
	}
	w.Spec, w.Pointer = &m.Spec, newHead(m)
	return w
}

// JSON returns the content of manifest.json. Equal manifests give equal bytes.
func (m *Manifest) JSON() []byte {
	// strings, numbers and maps of them: cannot fail
	data, _ := json.MarshalIndent(m.full(), "", " ")
	return append(data, '\n')
}

// maxLabel is where a label begins to name only the files that make a difference.
const maxLabel = 64 << 10

// Label returns the OCI image label that says which environments the image has files for: the
// version, the digest, each environment's target paths and the required ones, as JSON on one line.
// A label that would be longer than 64 KiB names only the required files that some environment
// lacks, and of each environment's files only these: the files that an environment lacks still
// follow from it.
func (m *Manifest) Label() (key, value string) {
	w := m.short()
	data, _ := json.Marshal(w)
	if len(data) > maxLabel {
		data, _ = json.Marshal(w.brief())
	}
	return LabelKey, string(data)
}

// brief leaves out the files that all environments have, and the files that are not required.
func (w wire) brief() wire {
	having := map[string]int{}
	for _, env := range w.Environments {
		for _, p := range env.Files {
			having[p]++
		}
	}
	shared := func(p string) bool { return having[p] == len(w.Environments) }
	out := w
	out.Required = slices.DeleteFunc(slices.Clone(w.Required), shared)
	out.Environments = map[string]wireEnvironment{}
	for name, env := range w.Environments {
		out.Environments[name] = wireEnvironment{Files: slices.DeleteFunc(slices.Clone(env.Files),
			func(p string) bool {
				_, required := slices.BinarySearch(out.Required, p)
				return !required
			})}
	}
	return out
}

// complete reports which files env lacks.
func (m *Manifest) complete(env *Environment) error {
	if len(env.Files) == 0 && m.head == nil {
		return fmt.Errorf("environment %q: no files in envs/%s: %w", env.Name, env.Name,
			ErrIncomplete)
	}
	if missing := m.lacks(env); len(missing) > 0 {
		return fmt.Errorf("environment %q: required files missing: %s: %w", env.Name, list(missing),
			ErrIncomplete)
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

// Missing returns the required files that the environment lacks, sorted; all of them when there is
// no such environment.
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
