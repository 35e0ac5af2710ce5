package main

import (
	"reflect"
	"slices"
)

// keys are the names of all keys of a section, and of those below. A section that is in itself, as
// a source that falls back on others, is looked at once.
func keys(section any) []string { return keysBelow(reflect.TypeOf(section), nil) }

func keysBelow(t reflect.Type, above []reflect.Type) (names []string) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || slices.Contains(above, t) {
		return nil
	}
	for field := range t.Fields() {
		if name := field.Tag.Get("yaml"); name != "" {
			names = append(append(names, name), keysBelow(field.Type, append(above, t))...)
		}
	}
	return names
}
