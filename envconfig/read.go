package envconfig

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"unsafe"

	"github.com/sluice-deploy/sluice/envconfig/internal/fastjson"
	"github.com/sluice-deploy/sluice/envconfig/internal/place"
	"github.com/sluice-deploy/sluice/internal/names"
)

// ParseManifest reads the output of [Manifest.JSON]. The error matches [ErrInvalid] when data is
// anything else: cut off, changed by hand so that the digest no longer fits, or of a version that
// is not known here.
func ParseManifest(data []byte) (*Manifest, error) { return parseManifest(string(data)) }

func parseManifest(text string) (*Manifest, error) {
	r := &manifestReader{Reader: fastjson.NewReader(text)}
	r.manifest()
	return r.whole()
}

// whole returns the manifest, of which everything was read, or the error of the reading.
func (r *manifestReader) whole() (*Manifest, error) {
	if err := r.End(); err != nil {
		return nil, invalid(ManifestName, "%w", err)
	}
	if r.version != manifestVersion {
		return nil, invalid(ManifestName, "%w", errVersion(r.version))
	}
	m := &r.m
	m.head = nil // what it says is known
	if err := m.validate(); err != nil {
		return nil, err
	}
	for _, env := range m.Environments {
		env.digest = env.Digest()
	}
	if m.digest = m.Digest(); m.digest != r.digest {
		return nil, invalid(ManifestName, "its content has the digest %s and it says %s: write "+
			"it anew with envconfig manifest", m.digest, names.Quote(r.digest))
	}
	return m, nil
}

func errVersion(version int64) error {
	return fmt.Errorf("version %d, this envconfig knows version %d", version, manifestVersion)
}

// UnmarshalJSON reads the output of [File.MarshalJSON].
func (f *File) UnmarshalJSON(data []byte) error {
	r := manifestReader{Reader: fastjson.NewReader(string(data))}
	*f = r.file()
	return r.End()
}

// manifestReader reads manifest.json, or the head of it.
type manifestReader struct {
	*fastjson.Reader
	m        Manifest
	version  int64
	digest   string
	headOnly bool
	cut      bool // the text is not the whole manifest
}

// errHead ends the reading after the head.
var errHead = errors.New("head")

func (r *manifestReader) manifest() {
	r.m.Environments = map[string]*Environment{}
	r.Object(func(key string) {
		switch key {
		case "version":
			if r.version = r.Number(); r.version != manifestVersion {
				r.Stop(errVersion(r.version)) // the rest may have another form
			}
		case "digest":
			r.digest = r.Text()
		case "spec":
			r.m.spec = fastjson.Compact(r.Raw(func() { r.spec(&r.m.Spec) }))
		case "pointer":
			head := r.pointer()
			if r.headOnly {
				r.m.head = head
			}
		case "environments":
			if r.headOnly && (r.cut || r.m.head != nil) {
				r.Stop(errHead)
			}
			r.Object(r.environment)
		case "required":
			r.m.Required = r.Texts()
		default:
			r.Skip()
		}
	})
}

func (r *manifestReader) environment(name string) {
	env := &Environment{Name: name}
	r.m.Environments[name] = env
	paths := 0
	r.Object(func(key string) {
		switch key {
		case "files": // the same as in the entries, which come after them
			r.List(func() { r.Text(); paths++ })
		case "entries":
			env.Files = slices.Grow(env.Files, paths)
			r.List(func() { env.Files = append(env.Files, r.file()) })
		default:
			r.Skip()
		}
	})
}

func (r *manifestReader) file() (f File) {
	r.Object(func(key string) {
		switch key {
		case "path":
			f.Path = r.Text()
		case "source":
			f.Source = r.Text()
		case "sha256":
			f.SHA256 = r.Text()
		case "size":
			f.Size = r.Number()
		case "mode":
			mode, err := strconv.ParseUint(r.Text(), 8, 9)
			if f.Mode = fs.FileMode(mode); err != nil {
				r.Fail("permission bits in octal")
			}
		case "action":
			f.Action = Action(r.Text())
		case "keys":
			f.Keys = r.Texts()
		default:
			r.Skip()
		}
	})
	return f
}

func (r *manifestReader) pointer() *head {
	h := &head{Environments: map[string]string{}}
	r.Object(func(key string) {
		switch key {
		case "environments":
			r.Object(func(name string) { h.Environments[name] = r.Text() })
		case "links":
			h.Links = r.Texts()
		case "missing":
			h.Missing = map[string][]string{}
			r.Object(func(name string) { h.Missing[name] = r.Texts() })
		default:
			r.Skip()
		}
	})
	return h
}

func (r *manifestReader) spec(s *Spec) {
	r.Object(func(key string) {
		switch key {
		case "default":
			s.Default = r.Text()
		case "live":
			s.Live = r.Texts()
		case "required":
			s.Required = r.Texts()
		case "paths":
			r.List(func() { s.Paths = append(s.Paths, r.rule()) })
		case "render":
			r.render(&s.Render)
		case "stopSignal":
			s.StopSignal = r.Text()
		case "witnesses":
			r.List(func() { s.Witnesses = append(s.Witnesses, r.witness()) })
		default:
			r.Skip()
		}
	})
}

func (r *manifestReader) rule() (rule Rule) {
	r.Object(func(key string) {
		switch key {
		case "match":
			rule.Match = r.Text()
		case "mode":
			rule.Mode = r.Text()
		case "action":
			rule.Action = Action(r.Text())
		default:
			r.Skip()
		}
	})
	return rule
}

func (r *manifestReader) render(to *Render) {
	r.Object(func(key string) {
		switch key {
		case "variables":
			to.Variables = r.Texts()
		case "files":
			to.Files = r.Texts()
		default:
			r.Skip()
		}
	})
}

func (r *manifestReader) witness() (w Witness) {
	r.Object(func(key string) {
		switch key {
		case "file":
			w.File = r.Text()
		case "key":
			w.Key = r.Text()
		case "hostname":
			w.Hostname = r.Text()
		case "environments":
			w.Environments = r.Texts()
		default:
			r.Skip()
		}
	})
	return w
}

// headSize is how much of manifest.json is read to find the head. It is within that unless an image
// has hundreds of links. Mostly headStart is enough to see it, or that there is none.
const headSize, headStart = 64 << 10, 4 << 10

// loadForStart is [Load], but reads no further than the head where that is enough.
func loadForStart(source *place.Tree) (*Manifest, error) {
	f, size, err := source.OpenFile(ManifestName)
	if errors.Is(err, fs.ErrNotExist) {
		return Scan(source.Root().FS())
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > maxManifest {
		return nil, invalid(ManifestName, "longer than %d bytes", maxManifest)
	}
	var text []byte
	readTo := func(limit int) (more bool, err error) {
		text, err = place.ReadOn(text, f, size, int64(limit))
		return len(text) == limit, err
	}
	for limit := headStart; ; {
		more, err := readTo(limit)
		if err != nil {
			return nil, err
		}
		r := &manifestReader{Reader: fastjson.NewReader(asText(text)), headOnly: true, cut: more}
		r.manifest()
		passed := errors.Is(r.Err(), errHead) // the place of the head
		if passed && r.m.head != nil {
			if m := r.headed(); m != nil {
				return m, nil
			}
		}
		switch {
		case !more && passed:
			return parseManifest(asText(text)) // gives the reason
		case !more:
			return r.whole()
		case limit == maxManifest:
			return nil, invalid(ManifestName, "longer than %d bytes", maxManifest)
		case passed || limit == headSize:
			limit = maxManifest
		default:
			limit = headSize
		}
	}
}

// asText returns b as a string without a copy. The bytes of b are not changed any more, though more
// may be appended.
func asText(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// headed returns the manifest of the head that was read, or nil when it is not as [Manifest.JSON]
// writes it.
func (r *manifestReader) headed() *Manifest {
	m := &r.m
	if r.version != manifestVersion || m.Spec.validate() != nil {
		return nil
	}
	m.digest = r.digest
	for name, digest := range m.head.Environments {
		m.Environments[name] = &Environment{Name: name, digest: digest}
	}
	return m
}
