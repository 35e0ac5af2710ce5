package envconfig

import (
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"time"

	"github.com/sluice-deploy/sluice/envconfig/internal/fastjson"
	"github.com/sluice-deploy/sluice/envconfig/internal/place"
)

const (
	recordName = "active.json"
	// besideName is the record's name where it has to stand beside the first target.
	besideName = place.TempPrefix + recordName
)

// record describes the active environment. It holds names, sums and modes, never a value.
type record struct {
	Version     int
	Environment string
	Digest      string
	Manifest    string
	UID         int
	Activated   time.Time
	Files       []placed
	// Dirs are the directories that activations made, and may take away when they are empty.
	Dirs []string

	// known counts files that were read and are not in Files, because they equal the wanted files,
	// in the same order.
	known int
}

// placed is one file as it was put in place.
type placed struct {
	Path   string
	SHA256 string
	Mode   fs.FileMode
	Action Action
	// Link is the target text of a symbolic link.
	Link string
}

// newRecord returns a record without files: mostly the one on disk says the same already, and the
// files are not needed.
func newRecord(m *Manifest, env *Environment, dirs []string) *record {
	return &record{
		Version: 1, Environment: env.Name, Digest: env.Digest(), Manifest: m.Digest(),
		UID: os.Geteuid(), Dirs: dirs,
	}
}

// says reports whether r, which may be nil, says the same as other and names exactly these files;
// times do not count.
func (r *record) says(other *record, w *wanted) bool {
	return r != nil && r.Environment == other.Environment && r.Digest == other.Digest &&
		r.Manifest == other.Manifest && r.UID == other.UID &&
		r.known == len(w.files) && len(r.Files) == 0 && slices.Equal(r.Dirs, other.Dirs)
}

// readRecord returns the record of the last activation, or nil. below is the state directory's path
// in t, or "". With w, which may be nil, it counts the files at the beginning that are those of w in
// known and does not keep them.
func readRecord(state, below string, t *place.Tree, besides string, w *wanted) *record {
	if below != "" { // mostly that is open already
		if text, err := t.ReadText(path.Join(below, recordName), maxManifest); err == nil {
			if r := parseRecord(text, w); r != nil {
				return r
			}
		}
	}
	if s, err := place.OpenRoot(state); err == nil {
		st := place.NewTree(s)
		defer st.Close()
		if text, err := st.ReadText(recordName, maxManifest); err == nil {
			if r := parseRecord(text, w); r != nil {
				return r
			}
		}
	}
	d, base, err := t.Split(besides)
	if err != nil {
		return nil
	}
	text, err := d.ReadText(base, maxManifest)
	if err != nil {
		return nil
	}
	return parseRecord(text, w)
}

// with returns r, which may be nil, together with the files that were put in place after it.
func (r *record) with(committed []place.Committed) *record {
	if len(committed) == 0 {
		return r
	}
	all := record{}
	if r != nil {
		all = *r
	}
	all.Manifest = "" // so that it equals no other and is written again
	all.Dirs, all.Files = slices.Clone(all.Dirs), slices.Clone(all.Files)
	for _, c := range committed {
		all.Dirs = append(all.Dirs, c.Dirs...)
		for _, name := range c.Files {
			all.Files = append(all.Files, placed{Path: name})
		}
	}
	slices.Sort(all.Dirs)
	return &all
}

// placedSize is roughly the size in bytes of a file with a short path in a record.
const placedSize = 120

// parseRecord returns nil for a record that is damaged: an activation does not depend on it.
func parseRecord(text string, w *wanted) *record {
	r := &record{}
	var known []byte
	in := fastjson.NewReader(text)
	in.Object(func(key string) {
		switch key {
		case "version":
			r.Version = int(in.Number())
		case "environment":
			r.Environment = in.Text()
		case "digest":
			r.Digest = in.Text()
		case "manifest":
			r.Manifest = in.Text()
		case "uid":
			r.UID = int(in.Number())
		case "activated":
			if err := r.Activated.UnmarshalText([]byte(in.Text())); err != nil {
				in.Fail("a time")
			}
		case "files":
			in.List(func() {
				if w != nil && r.known < len(w.files) {
					next := w.placed(r.known)
					known = next.appendTo(known[:0])
					if in.PassOver(known) {
						r.known++
						return
					}
				}
				r.Files = append(r.Files, readPlaced(in))
			})
		case "dirs":
			r.Dirs = in.Texts()
		default:
			in.Skip()
		}
	})
	if in.End() != nil || r.Version != 1 {
		return nil
	}
	for i := range r.Files {
		if place.PathProblem(r.Files[i].Path) != "" {
			return nil
		}
	}
	for _, dir := range r.Dirs {
		if place.PathProblem(dir) != "" {
			return nil
		}
	}
	return r
}

// readPlaced reads the output of placed.appendTo.
func readPlaced(in *fastjson.Reader) (f placed) {
	in.Object(func(key string) {
		switch key {
		case "path":
			f.Path = in.Text()
		case "sha256":
			f.SHA256 = in.Text()
		case "mode":
			f.Mode = fs.FileMode(in.Number())
		case "action":
			f.Action = Action(in.Text())
		case "link":
			f.Link = in.Text()
		default:
			in.Skip()
		}
	})
	return f
}

// json returns the form that parseRecord reads.
func (r *record) json() []byte {
	b := make([]byte, 0, 512+placedSize*len(r.Files))
	b = strconv.AppendInt(append(b, `{"version":`...), int64(r.Version), 10)
	b = fastjson.AppendText(append(b, `,"environment":`...), r.Environment)
	b = fastjson.AppendText(append(b, `,"digest":`...), r.Digest)
	b = fastjson.AppendText(append(b, `,"manifest":`...), r.Manifest)
	b = strconv.AppendInt(append(b, `,"uid":`...), int64(r.UID), 10)
	b = fastjson.AppendText(append(b, `,"activated":`...), r.Activated.Format(time.RFC3339Nano))
	b = fastjson.AppendList(append(b, `,"files":`...), len(r.Files), func(b []byte, i int) []byte {
		return r.Files[i].appendTo(b)
	})
	if len(r.Dirs) > 0 {
		b = fastjson.AppendTexts(append(b, `,"dirs":`...), r.Dirs)
	}
	return append(b, "}\n"...)
}

// appendTo appends the form that readPlaced reads.
func (f *placed) appendTo(b []byte) []byte {
	b = fastjson.AppendText(append(b, `{"path":`...), f.Path)
	b = fastjson.AppendText(append(b, `,"sha256":`...), f.SHA256)
	b = strconv.AppendInt(append(b, `,"mode":`...), int64(f.Mode), 10)
	if f.Action != "" {
		b = fastjson.AppendText(append(b, `,"action":`...), string(f.Action))
	}
	if f.Link != "" {
		b = fastjson.AppendText(append(b, `,"link":`...), f.Link)
	}
	return append(b, '}')
}

// write writes the record to the state directory or, failing that, beside the first target. Where
// neither can be written the environment is active all the same. Only this user may read the
// record: from the sums of rendered files others could test guesses of a secret.
func (r *record) write(state string, t *place.Tree, besides string) {
	data := r.json()
	if os.MkdirAll(state, 0o755) == nil {
		if s, err := place.OpenRoot(state); err == nil {
			st := place.NewTree(s)
			defer st.Close()
			if st.Replace(recordName, data) == nil {
				_ = t.Remove(besides)
				return
			}
		}
	}
	_ = t.Replace(besides, data)
}
