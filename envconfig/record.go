package envconfig

import (
	"cmp"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"
)

const (
	recordName = "active.json"
	// besideName is the record's name where it has to stand beside the first target.
	besideName = tempPrefix + recordName
)

// record says what is active. It holds names, sums and modes, never a value.
type record struct {
	Version     int       `json:"version"`
	Environment string    `json:"environment"`
	Digest      string    `json:"digest"`
	Manifest    string    `json:"manifest"`
	UID         int       `json:"uid"`
	Activated   time.Time `json:"activated"`
	Files       []placed  `json:"files"`
	// Dirs are the folders that activations made, and may take away when they are empty.
	Dirs []string `json:"dirs,omitempty"`
}

// placed is one file as it was put in place.
type placed struct {
	Path   string      `json:"path"`
	SHA256 string      `json:"sha256"`
	Mode   fs.FileMode `json:"mode"`
	Action Action      `json:"action,omitempty"`
}

func newRecord(m *Manifest, env *Environment, now time.Time) *record {
	r := &record{Version: 1, Environment: env.Name, Digest: env.Digest(), Manifest: m.Digest(), UID: os.Geteuid(), Activated: now.UTC()}
	for _, f := range env.Files {
		r.Files = append(r.Files, placed{Path: f.Path, SHA256: f.SHA256, Mode: f.Mode, Action: f.Action})
	}
	return r
}

// same reports whether both say the same but for the time.
func (r *record) same(other *record) bool {
	return r.Environment == other.Environment && r.Digest == other.Digest && r.Manifest == other.Manifest && r.UID == other.UID &&
		slices.Equal(r.Files, other.Files) && slices.Equal(r.Dirs, other.Dirs)
}

// beside is where the record stands when the state folder cannot be written.
func beside(m *Manifest) string {
	first := ""
	for _, env := range m.Environments {
		if len(env.Files) > 0 && (first == "" || env.Files[0].Path < first) {
			first = env.Files[0].Path
		}
	}
	return path.Join(path.Dir(cmp.Or(first, "x")), besideName)
}

// readRecord returns what the last activation wrote, or nil.
func readRecord(state string, t *tree, m *Manifest) *record {
	if s, err := os.OpenRoot(state); err == nil {
		defer s.Close()
		if r := parseRecord(readFile(s.FS(), recordName, maxManifest)); r != nil {
			return r
		}
	}
	d, base, err := t.split(beside(m))
	if err != nil {
		return nil
	}
	return parseRecord(readFile(d.FS(), base, maxManifest))
}

// parseRecord returns nil for a record that is not there or makes no sense: it is a help, not a condition.
func parseRecord(data []byte, err error) *record {
	r := &record{}
	if err != nil || json.Unmarshal(data, r) != nil || r.Version != 1 {
		return nil
	}
	for _, f := range r.Files {
		if pathProblem(f.Path) != "" {
			return nil
		}
	}
	for _, dir := range r.Dirs {
		if pathProblem(dir) != "" {
			return nil
		}
	}
	return r
}

// write puts the record into the state folder or, failing that, beside the first target. Where neither can be written the
// environment is active all the same.
func (r *record) write(state string, t *tree, m *Manifest) {
	data, err := json.Marshal(r)
	if err != nil {
		return
	}
	fill := func(w io.Writer) error { _, err := w.Write(append(data, '\n')); return err }
	if os.MkdirAll(state, 0o755) == nil {
		if s, err := os.OpenRoot(state); err == nil {
			st := &tree{root: s}
			defer st.close()
			if st.create(tempPrefix+recordName, 0o644, fill) == nil && st.rename(tempPrefix+recordName, recordName) == nil {
				_ = t.remove(beside(m))
				return
			}
		}
	}
	name := beside(m)
	draft := name + ".new"
	if t.create(draft, 0o644, fill) != nil || t.rename(draft, name) != nil {
		_ = t.remove(draft)
	}
}
