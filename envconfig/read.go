package envconfig

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// ParseManifest reads what [Manifest.JSON] wrote. The error matches [ErrInvalid] when data is anything else: cut off,
// changed by hand so that the digest no longer fits, or of a version that is not known here.
func ParseManifest(data []byte) (*Manifest, error) { return parseManifest(string(data)) }

func parseManifest(text string) (*Manifest, error) {
	r := &manifestReader{jsonReader: jsonReader{data: text}}
	r.manifest()
	if err := r.end(); err != nil {
		return nil, invalid(ManifestName, "%w", err)
	}
	if r.version != manifestVersion {
		return nil, invalid(ManifestName, "%w", errVersion(r.version))
	}
	m := &r.m
	if err := m.validate(); err != nil {
		return nil, err
	}
	for _, env := range m.Environments {
		env.digest = env.Digest()
	}
	if m.digest = m.Digest(); m.digest != r.digest {
		return nil, invalid(ManifestName, "its content has the digest %s and it says %s: write it anew with envconfig manifest", m.digest, quote(r.digest))
	}
	return m, nil
}

func errVersion(version int64) error {
	return fmt.Errorf("version %d, this envconfig knows version %d", version, manifestVersion)
}

// UnmarshalJSON reads what [File.MarshalJSON] wrote.
func (f *File) UnmarshalJSON(data []byte) error {
	r := manifestReader{jsonReader: jsonReader{data: string(data)}}
	*f = r.file()
	return r.end()
}

// manifestReader reads manifest.json, or the head of it.
type manifestReader struct {
	jsonReader
	m        Manifest
	version  int64
	digest   string
	headOnly bool
}

// errHead ends the reading after the head.
var errHead = errors.New("head")

func (r *manifestReader) manifest() {
	r.m.Environments = map[string]*Environment{}
	r.object(func(key string) {
		switch key {
		case "version":
			if r.version = r.number(); r.version != manifestVersion && r.err == nil {
				r.err = errVersion(r.version) // what follows may have another form
			}
		case "digest":
			r.digest = r.text()
		case "spec":
			r.peek()
			start := r.at
			r.spec(&r.m.Spec)
			r.m.spec = compact(r.data[start:min(r.at, len(r.data))])
		case "pointer":
			head := r.pointer()
			if r.headOnly {
				r.m.head = head
			}
		case "environments":
			if r.headOnly {
				r.err = errHead
			}
			r.object(r.environment)
		case "required":
			r.m.Required = r.texts()
		default:
			r.skip()
		}
	})
}

func (r *manifestReader) environment(name string) {
	env := &Environment{Name: name}
	r.m.Environments[name] = env
	paths := 0
	r.object(func(key string) {
		switch key {
		case "files": // the same as in the entries, which come after them
			r.list(func() { r.text(); paths++ })
		case "entries":
			env.Files = slices.Grow(env.Files, paths)
			r.list(func() { env.Files = append(env.Files, r.file()) })
		default:
			r.skip()
		}
	})
}

func (r *manifestReader) file() (f File) {
	r.object(func(key string) {
		switch key {
		case "path":
			f.Path = r.text()
		case "source":
			f.Source = r.text()
		case "sha256":
			f.SHA256 = r.text()
		case "size":
			f.Size = r.number()
		case "mode":
			mode, err := strconv.ParseUint(r.text(), 8, 9)
			if f.Mode = fs.FileMode(mode); err != nil {
				r.fail("permission bits in octal")
			}
		case "action":
			f.Action = Action(r.text())
		case "keys":
			f.Keys = r.texts()
		default:
			r.skip()
		}
	})
	return f
}

func (r *manifestReader) pointer() *head {
	h := &head{Environments: map[string]string{}}
	r.object(func(key string) {
		switch key {
		case "environments":
			r.object(func(name string) { h.Environments[name] = r.text() })
		case "links":
			h.Links = r.texts()
		case "missing":
			h.Missing = map[string][]string{}
			r.object(func(name string) { h.Missing[name] = r.texts() })
		default:
			r.skip()
		}
	})
	return h
}

func (r *manifestReader) spec(s *Spec) {
	r.object(func(key string) {
		switch key {
		case "default":
			s.Default = r.text()
		case "live":
			s.Live = r.texts()
		case "required":
			s.Required = r.texts()
		case "paths":
			r.list(func() { s.Paths = append(s.Paths, r.rule()) })
		case "render":
			r.render(&s.Render)
		case "witnesses":
			r.list(func() { s.Witnesses = append(s.Witnesses, r.witness()) })
		default:
			r.skip()
		}
	})
}

func (r *manifestReader) rule() (rule Rule) {
	r.object(func(key string) {
		switch key {
		case "match":
			rule.Match = r.text()
		case "mode":
			rule.Mode = r.text()
		case "action":
			rule.Action = Action(r.text())
		default:
			r.skip()
		}
	})
	return rule
}

func (r *manifestReader) render(to *Render) {
	r.object(func(key string) {
		switch key {
		case "variables":
			to.Variables = r.texts()
		case "files":
			to.Files = r.texts()
		default:
			r.skip()
		}
	})
}

func (r *manifestReader) witness() (w Witness) {
	r.object(func(key string) {
		switch key {
		case "file":
			w.File = r.text()
		case "key":
			w.Key = r.text()
		case "hostname":
			w.Hostname = r.text()
		case "environments":
			w.Environments = r.texts()
		default:
			r.skip()
		}
	})
	return w
}

// compact is JSON without the blanks between its parts: what json.Marshal gave before it was indented.
func compact(data string) []byte {
	out, quoted := make([]byte, 0, len(data)), false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\' && i+1 < len(data):
			out = append(out, c, data[i+1])
			i++
			continue
		case c == '"':
			quoted = !quoted
		case !quoted && strings.IndexByte(" \t\r\n", c) >= 0:
			continue
		}
		out = append(out, data[i])
	}
	return out
}

// headSize is how much of manifest.json is read to find the head. It is within that unless an image has hundreds of links.
// Mostly headStart is enough to see it, or that there is none.
const headSize, headStart = 64 << 10, 4 << 10

// loadForStart is [Load], but reads no further than the head where that is enough.
func loadForStart(fsys fs.FS) (*Manifest, error) {
	f, size, err := openFile(fsys, ManifestName)
	if errors.Is(err, fs.ErrNotExist) {
		return Scan(fsys)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > maxManifest {
		return nil, invalid(ManifestName, "longer than %d bytes", maxManifest)
	}
	var text strings.Builder
	readTo := func(limit int) (more bool, err error) {
		text.Grow(max(int(min(size, int64(limit)))-text.Len(), 0))
		_, err = readSome(&text, f, int64(limit-text.Len()))
		return text.Len() == limit, err
	}
	more, err := readTo(headStart)
	if err != nil {
		return nil, err
	}
	m, decided := parseHead(text.String())
	if more && !decided {
		if more, err = readTo(headSize); err != nil {
			return nil, err
		}
		m, _ = parseHead(text.String())
	}
	if m != nil {
		return m, nil
	}
	if more {
		if _, err := readTo(maxManifest); err != nil {
			return nil, err
		}
	}
	return parseManifest(text.String())
}

// parseHead returns nil when the manifest has no head, or is not as [Manifest.JSON] writes it; [ParseManifest] tells why. It is
// decided when the place of the head has been passed.
func parseHead(text string) (m *Manifest, decided bool) {
	r := &manifestReader{jsonReader: jsonReader{data: text}, headOnly: true}
	r.manifest()
	m, decided = &r.m, errors.Is(r.err, errHead)
	if !decided || m.head == nil || r.version != manifestVersion || m.Spec.validate() != nil {
		return nil, decided
	}
	m.digest = r.digest
	for name, digest := range m.head.Environments {
		m.Environments[name] = &Environment{Name: name, digest: digest}
	}
	return m, true
}
