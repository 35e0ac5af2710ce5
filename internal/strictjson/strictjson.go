// Package strictjson decodes JSON that people and programs write by hand: request bodies and
// configuration files. encoding/json takes the last of two equal keys and ignores the case of
// letters; two readers of one text may then understand different things (RFC 8259, section 4), and
// a misspelt field looks accepted.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/sluice-deploy/sluice/internal/names"
)

// Decode decodes data, which is one JSON value in UTF-8, into the pointer into, as json.Unmarshal
// does. It returns an error for an unknown field of a struct, one whose case differs, a key that an
// object has twice, and anything but white space behind the value. Empty data is io.EOF. After an
// error *into may hold a part.
//
// Types with an UnmarshalJSON or UnmarshalText method choose the names of their fields themselves;
// in them Decode looks for duplicate keys only.
func Decode(data []byte, into any) error {
	if !utf8.Valid(data) {
		return errors.New("want UTF-8")
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("data after the end at byte %d: want one JSON value", decoder.InputOffset())
	}
	w := walker{json.NewDecoder(bytes.NewReader(data))}
	return w.value(reflect.TypeOf(into), "")
}

// walker reads a valid text again and looks at the keys.
type walker struct{ decoder *json.Decoder }

// value reads one value that is decoded into t; a nil t is not known. path is where it stands.
func (w walker) value(t reflect.Type, path string) error {
	token, err := w.decoder.Token()
	if err != nil {
		return err
	}
	switch token {
	case json.Delim('{'):
		return w.object(t, path)
	case json.Delim('['):
		elem := element(t, reflect.Slice, reflect.Array)
		for n := 0; w.decoder.More(); n++ {
			if err := w.value(elem, fmt.Sprintf("%s[%d]", path, n)); err != nil {
				return err
			}
		}
		_, err = w.decoder.Token()
	}
	return err
}

// object reads the members of an object and its closing brace.
func (w walker) object(t reflect.Type, path string) error {
	fields := fieldsOf(t)
	elem := element(t, reflect.Map)
	seen := map[string]bool{}
	for w.decoder.More() {
		token, err := w.decoder.Token()
		if err != nil {
			return err
		}
		key, _ := token.(string) // by the grammar
		at := strings.TrimPrefix(path+"."+key, ".")
		if seen[key] {
			return fmt.Errorf("field %s comes twice: want it once", names.Quote(at))
		}
		seen[key] = true
		member := elem
		if fields != nil {
			field, known := fields[key]
			if !known {
				return fmt.Errorf("field %s: want %q: the case of letters counts", names.Quote(at),
					similar(fields, key))
			}
			member = field
		}
		if err := w.value(member, at); err != nil {
			return err
		}
	}
	_, err := w.decoder.Token()
	return err
}

// similar returns the field that encoding/json has taken the key for.
func similar(fields map[string]reflect.Type, key string) string {
	for name := range fields {
		if strings.EqualFold(name, key) {
			return name
		}
	}
	return ""
}

// plain returns t without pointers, nil if t reads its own JSON or is not known.
func plain(t reflect.Type) reflect.Type {
	for t != nil {
		if p := reflect.PointerTo(t); p.Implements(reflect.TypeFor[json.Unmarshaler]()) {
			return nil
		}
		if t.Kind() != reflect.Pointer {
			return t
		}
		t = t.Elem()
	}
	return nil
}

// element returns the type of the elements of t if it has one of the kinds, else nil.
func element(t reflect.Type, kinds ...reflect.Kind) reflect.Type {
	if t = plain(t); t == nil {
		return nil
	}
	for _, kind := range kinds {
		if t.Kind() == kind {
			return t.Elem()
		}
	}
	return nil
}

// fieldsOf returns the types of the fields of a struct by their names in JSON, nil for any other
// type.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	if t = plain(t); t == nil || t.Kind() != reflect.Struct {
		return nil
	}
	fields := map[string]reflect.Type{}
	for _, f := range reflect.VisibleFields(t) {
		tag := f.Tag.Get("json")
		name, _, _ := strings.Cut(tag, ",")
		if tag == "-" || name == "" && f.Anonymous || !f.IsExported() && !f.Anonymous {
			continue
		}
		if name == "" {
			name = f.Name
		}
		fields[name] = f.Type
	}
	return fields
}
