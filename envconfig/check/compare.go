package check

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/envconfig"
)

// Change is one difference between two environments. It holds no value.
type Change struct {
	// Sign is "+" for a key or file of the second environment only, "-" for one of the first only,
	// "~" for a difference.
	Sign string `json:"sign"`
	Path string `json:"path"`
	// Key is empty where the file as a whole is meant.
	Key string `json:"key,omitempty"`
}

// Diff lists the differences between two environments, key by key where the format is known, sorted
// by path and key.
func (s *Set) Diff(a, b string) []Change {
	out := []Change{}
	for _, p := range s.paths() {
		fa, fb := s.files[a][p], s.files[b][p]
		switch {
		case fa == nil && fb == nil:
		case fa == nil:
			out = append(out, Change{"+", p, ""})
		case fb == nil:
			out = append(out, Change{"-", p, ""})
		case fa.SHA256 == fb.SHA256 && fa.Mode == fb.Mode:
		case !tree(fa.format) || fa.partial || fb.partial:
			out = append(out, Change{"~", p, ""})
		default:
			out = append(out, diffKeys(p, fa, fb)...)
		}
	}
	return out
}

func diffKeys(p string, fa, fb *File) []Change {
	type content struct {
		kind  Kind
		value string
	}
	settings := func(f *File) map[string]content {
		m := map[string]content{}
		for _, s := range f.Settings {
			m[s.Key] = content{s.Kind, s.value}
		}
		return m
	}
	a, b := settings(fa), settings(fb)
	var out []Change
	for key, was := range a {
		if is, ok := b[key]; !ok {
			out = append(out, Change{"-", p, key})
		} else if is != was {
			out = append(out, Change{"~", p, key})
		}
	}
	for key := range b {
		if _, ok := a[key]; !ok {
			out = append(out, Change{"+", p, key})
		}
	}
	if len(out) == 0 {
		return []Change{{"~", p, ""}} // comments, order or mode
	}
	slices.SortFunc(out, func(a, b Change) int { return cmp.Compare(a.Key, b.Key) })
	return out
}

// Place is where a key comes from in one environment.
type Place struct {
	Environment string `json:"environment"`
	Path        string `json:"path"`
	// Source is the file in the source directory that wins, and Line where the key stands in it.
	Source string `json:"source"`
	Line   int    `json:"line,omitempty"`
	Kind   Kind   `json:"kind"`
	// Hides is the file of _base that Source stands in the place of, or empty.
	Hides string `json:"hides,omitempty"`
	// Same are the other environments that have the same value.
	Same []string `json:"same,omitempty"`
}

// Explain returns the origin of key in each environment and the other environments with the same
// value.
func (s *Set) Explain(key string, exists func(source string) bool) []Place {
	var out []Place
	for _, p := range s.paths() {
		_, byKey := s.index(p)
		at := byKey[key]
		for _, name := range slices.Sorted(maps.Keys(at)) {
			f := s.files[name][p]
			place := Place{Environment: name, Path: p, Source: f.Source, Line: at[name].Line,
				Kind: at[name].Kind}
			if base := "envs/_base/" + p; f.Source != base && exists(base) {
				place.Hides = base
			}
			for _, other := range slices.Sorted(maps.Keys(at)) {
				if other != name && at[other].value == at[name].value &&
					at[other].Kind == at[name].Kind {
					place.Same = append(place.Same, other)
				}
			}
			out = append(out, place)
		}
	}
	return out
}

// Matrix returns, for each target path and key, the kind in each environment; empty where the
// environment lacks it.
func (s *Set) Matrix() (environments []string, rows []Row) {
	environments = s.manifest.Names()
	for _, p := range s.paths() {
		_, byKey := s.index(p)
		for _, key := range slices.Sorted(maps.Keys(byKey)) {
			row := Row{Path: p, Key: key, Kinds: make([]Kind, len(environments))}
			for i, name := range environments {
				if setting := byKey[key][name]; setting != nil {
					row.Kinds[i] = setting.Kind
				}
			}
			rows = append(rows, row)
		}
	}
	return environments, rows
}

// Row is one key of the matrix.
type Row struct {
	Path  string
	Key   string
	Kinds []Kind
}

// AddKeys puts the names of the settings into the files of the manifest, which is changed; its
// digest is not.
func (s *Set) AddKeys() *envconfig.Manifest {
	for name, env := range s.manifest.Environments {
		for i := range env.Files {
			f := s.files[name][env.Files[i].Path]
			if f.Settings == nil || f.partial || !tree(f.format) {
				continue
			}
			keys := make([]string, 0, len(f.Settings))
			for _, setting := range f.Settings {
				keys = append(keys, setting.Key)
			}
			slices.SortFunc(keys, strings.Compare)
			env.Files[i].Keys = slices.Compact(keys)
		}
	}
	return s.manifest
}
