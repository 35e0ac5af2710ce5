package envconfig

import (
	"encoding/json"
	"errors"
	"io/fs"
)

// head stands near the beginning of the manifest of an image in which every file has the action pointer. It says all that
// an activation needs then, so that a start costs the same however many files there are.
type head struct {
	// Environments by name, with the digest of each.
	Environments map[string]string `json:"environments"`
	// Links are the baked ones.
	Links []string `json:"links"`
	// Missing are the required files that an environment lacks; environments that lack none are left out.
	Missing map[string][]string `json:"missing,omitempty"`
}

// newHead returns nil unless all files have the action pointer.
func newHead(m *Manifest) *head {
	h := &head{Environments: map[string]string{}, Links: m.links(), Missing: map[string][]string{}}
	for name, env := range m.Environments {
		for i := range env.Files {
			if env.Files[i].Action != Pointer {
				return nil
			}
		}
		h.Environments[name] = env.Digest()
		if missing := m.lacks(env); len(missing) > 0 {
			h.Missing[name] = missing
		}
	}
	if len(h.Links) == 0 {
		return nil
	}
	return h
}

// loadForStart is [Load], but reads no further than the head where that is enough.
func loadForStart(fsys fs.FS) (*Manifest, error) {
	m, err := loadHead(fsys)
	if m != nil || err != nil {
		return m, err
	}
	return Load(fsys)
}

// loadHead returns nil when the manifest has no head, or is not as [Manifest.JSON] writes it; [Load] then tells why.
func loadHead(fsys fs.FS) (*Manifest, error) {
	f, err := fsys.Open(ManifestName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m := &Manifest{Environments: map[string]*Environment{}}
	var version int
	dec := json.NewDecoder(f)
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return nil, nil
	}
	for {
		key, err := dec.Token()
		if err != nil {
			return nil, nil
		}
		switch key {
		case "version":
			err = dec.Decode(&version)
		case "digest":
			err = dec.Decode(&m.digest)
		case "spec":
			err = dec.Decode(&m.Spec)
		case "pointer":
			err = dec.Decode(&m.head)
		default:
			if m.head == nil || version != manifestVersion || m.Spec.validate() != nil {
				return nil, nil
			}
			for name, digest := range m.head.Environments {
				m.Environments[name] = &Environment{Name: name, digest: digest}
			}
			return m, nil
		}
		if err != nil {
			return nil, nil
		}
	}
}
