package envconfig

import (
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
	// Link is what a symbolic link says.
	Link string `json:"link,omitempty"`
}

func newRecord(m *Manifest, env *Environment, wanted []want, now time.Time) *record {
	r := &record{Version: 1, Environment: env.Name, Digest: env.Digest(), Manifest: m.Digest(), UID: os.Geteuid(), Activated: now.UTC()}
	for i := range wanted {
		w := &wanted[i]
		r.Files = append(r.Files, placed{Path: w.path, SHA256: w.sha256, Mode: w.mode, Action: w.action, Link: w.link})
	}
	return r
}

// same reports whether both say the same but for the time.
func (r *record) same(other *record) bool {
	return r.Environment == other.Environment && r.Digest == other.Digest && r.Manifest == other.Manifest && r.UID == other.UID &&
		slices.Equal(r.Files, other.Files) && slices.Equal(r.Dirs, other.Dirs)
}

// beside is where the record stands when the state folder cannot be written.
func beside(m *Manifest, l layout) string { return path.Join(path.Dir(m.first(l)), besideName) }

// readRecord returns what the last activation wrote, or nil.
func readRecord(state string, t *tree, besides string) *record {
	if s, err := os.OpenRoot(state); err == nil {
		defer s.Close()
		if r := parseRecord(readFile(s.FS(), recordName, maxManifest)); r != nil {
			return r
		}
	}
	d, base, err := t.split(besides)
	if err != nil {
		return nil
	}
	return parseRecord(readFile(d.FS(), base, maxManifest))
}

// with is r, which may be nil, and what journals say was put in place after it.
func (r *record) with(journals []*journal) *record {
	if len(journals) == 0 {
		return r
	}
	all := record{}
	if r != nil {
		all = *r
	}
	all.Manifest = "" // so that a record of its own is written, whatever r says
	for _, j := range journals {
		all.Dirs = append(slices.Clone(all.Dirs), j.Dirs...)
		for i := range j.Ops {
			if o := &j.Ops[i]; o.Kind != opRemove {
				all.Files = append(slices.Clone(all.Files), placed{Path: o.Path})
			}
		}
	}
	slices.Sort(all.Dirs)
	return &all
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
// environment is active all the same. Only this user may read it: sums of rendered files would let others test guesses.
func (r *record) write(state string, t *tree, besides string) {
	data, err := json.Marshal(r)
	if err != nil {
		return
	}
	data = append(data, '\n')
	if os.MkdirAll(state, 0o755) == nil {
		if s, err := os.OpenRoot(state); err == nil {
			st := &tree{root: s}
			defer st.close()
			if st.replace(recordName, data) == nil {
				_ = t.remove(besides)
				return
			}
		}
	}
	_ = t.replace(besides, data)
}

// replace puts data in the place of a small file, as a whole, for this user alone.
func (t *tree) replace(name string, data []byte) error {
	draft := path.Join(path.Dir(name), tempPrefix+"draft")
	err := t.create(draft, 0o600, func(w io.Writer) error { _, err := w.Write(data); return err })
	if err == nil {
		err = t.rename(draft, name)
	}
	if err != nil {
		_ = t.remove(draft)
	}
	return err
}
