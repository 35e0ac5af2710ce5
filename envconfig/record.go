package envconfig

import (
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"time"
)

const (
	recordName = "active.json"
	// besideName is the record's name where it has to stand beside the first target.
	besideName = tempPrefix + recordName
)

// record says what is active. It holds names, sums and modes, never a value.
type record struct {
	Version     int
	Environment string
	Digest      string
	Manifest    string
	UID         int
	Activated   time.Time
	Files       []placed
	// Dirs are the folders that activations made, and may take away when they are empty.
	Dirs []string

	// known counts files that were read and are not in Files, because they are what is wanted now, in the same order.
	known int
}

// placed is one file as it was put in place.
type placed struct {
	Path   string
	SHA256 string
	Mode   fs.FileMode
	Action Action
	// Link is what a symbolic link says.
	Link string
}

// newRecord is a record without files: mostly the one that is there says the same already.
func newRecord(m *Manifest, env *Environment, dirs []string) *record {
	return &record{Version: 1, Environment: env.Name, Digest: env.Digest(), Manifest: m.Digest(), UID: os.Geteuid(), Dirs: dirs}
}

// says reports whether r, which may be nil, says what other does, and that these files were put in place, whenever it was.
func (r *record) says(other *record, files []want) bool {
	return r != nil && r.Environment == other.Environment && r.Digest == other.Digest && r.Manifest == other.Manifest && r.UID == other.UID &&
		r.known == len(files) && len(r.Files) == 0 && slices.Equal(r.Dirs, other.Dirs)
}

// placed is what a record says of w.
func (w *want) placed() placed {
	p := placed{Path: w.Path, SHA256: w.SHA256, Mode: w.Mode, Action: w.Action, Link: w.link}
	if w.link != "" {
		p.SHA256 = ""
	}
	return p
}

// beside is where the record stands when the state folder cannot be written.
func beside(m *Manifest, l layout) string { return path.Join(path.Dir(m.first(l)), besideName) }

// readRecord returns what the last activation wrote, or nil. What is wanted only saves keeping what it says of that.
func readRecord(state string, t *tree, besides string, wanted []want) *record {
	if s, err := os.OpenRoot(asFolder(state)); err == nil {
		defer s.Close()
		if text, err := readText(s.FS(), recordName, maxManifest); err == nil {
			if r := parseRecord(text, wanted); r != nil {
				return r
			}
		}
	}
	d, base, err := t.split(besides)
	if err != nil {
		return nil
	}
	text, err := readText(d.FS(), base, maxManifest)
	if err != nil {
		return nil
	}
	return parseRecord(text, wanted)
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

// placedSize is what a file with a short path takes up in a record.
const placedSize = 120

// parseRecord returns nil for a record that makes no sense: it is a help, not a condition.
func parseRecord(text string, wanted []want) *record {
	r := &record{}
	var known []byte
	in := &jsonReader{data: text}
	in.object(func(key string) {
		switch key {
		case "version":
			r.Version = int(in.number())
		case "environment":
			r.Environment = in.text()
		case "digest":
			r.Digest = in.text()
		case "manifest":
			r.Manifest = in.text()
		case "uid":
			r.UID = int(in.number())
		case "activated":
			if err := r.Activated.UnmarshalText([]byte(in.text())); err != nil {
				in.fail("a time")
			}
		case "files":
			in.list(func() {
				if r.known < len(wanted) {
					w := wanted[r.known].placed()
					known = w.appendTo(known[:0])
					if in.passOver(known) {
						r.known++
						return
					}
				}
				r.Files = append(r.Files, in.placed())
			})
		case "dirs":
			r.Dirs = in.texts()
		default:
			in.skip()
		}
	})
	if in.end() != nil || r.Version != 1 {
		return nil
	}
	for i := range r.Files {
		if pathProblem(r.Files[i].Path) != "" {
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

func (r *jsonReader) placed() (f placed) {
	r.object(func(key string) {
		switch key {
		case "path":
			f.Path = r.text()
		case "sha256":
			f.SHA256 = r.text()
		case "mode":
			f.Mode = fs.FileMode(r.number())
		case "action":
			f.Action = Action(r.text())
		case "link":
			f.Link = r.text()
		default:
			r.skip()
		}
	})
	return f
}

// json is what parseRecord reads.
func (r *record) json() []byte {
	b := make([]byte, 0, 512+placedSize*len(r.Files))
	b = strconv.AppendInt(append(b, `{"version":`...), int64(r.Version), 10)
	b = appendText(append(b, `,"environment":`...), r.Environment)
	b = appendText(append(b, `,"digest":`...), r.Digest)
	b = appendText(append(b, `,"manifest":`...), r.Manifest)
	b = strconv.AppendInt(append(b, `,"uid":`...), int64(r.UID), 10)
	b = appendText(append(b, `,"activated":`...), r.Activated.Format(time.RFC3339Nano))
	b = appendList(append(b, `,"files":`...), len(r.Files), func(b []byte, i int) []byte {
		return r.Files[i].appendTo(b)
	})
	if len(r.Dirs) > 0 {
		b = appendTexts(append(b, `,"dirs":`...), r.Dirs)
	}
	return append(b, "}\n"...)
}

// appendTo appends what jsonReader.placed reads.
func (f *placed) appendTo(b []byte) []byte {
	b = appendText(append(b, `{"path":`...), f.Path)
	b = appendText(append(b, `,"sha256":`...), f.SHA256)
	b = strconv.AppendInt(append(b, `,"mode":`...), int64(f.Mode), 10)
	if f.Action != "" {
		b = appendText(append(b, `,"action":`...), string(f.Action))
	}
	if f.Link != "" {
		b = appendText(append(b, `,"link":`...), f.Link)
	}
	return append(b, '}')
}

// write puts the record into the state folder or, failing that, beside the first target. Where neither can be written the
// environment is active all the same. Only this user may read it: sums of rendered files would let others test guesses.
func (r *record) write(state string, t *tree, besides string) {
	data := r.json()
	if os.MkdirAll(state, 0o755) == nil {
		if s, err := os.OpenRoot(asFolder(state)); err == nil {
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
