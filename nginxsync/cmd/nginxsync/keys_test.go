package main

import "reflect"

// keys are the names of all keys of a section, and of those below.
func keys(section any) (names []string) {
	t := reflect.TypeOf(section)
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	for field := range t.Fields() {
		if name := field.Tag.Get("yaml"); name != "" {
			names = append(names, name)
			names = append(names, keys(reflect.Zero(field.Type).Interface())...)
		}
	}
	return names
}
