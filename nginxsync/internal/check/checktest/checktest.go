// Package checktest gives every field of a Config a bad value, and wants an error that names the
// field.
package checktest

import (
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// Run calls build with good, which must pass, then with each bad value alone, and with the last bad
// value of each field together. Every exported field of C must be in bad or among free, which are
// the fields that have no bad value.
func Run[C any](t *testing.T, sentinel error, good C, build func(C) error,
	bad map[string][]func(*C), free ...string) {
	t.Helper()
	if err := build(good); err != nil {
		t.Fatalf("good configuration: %v", err)
	}
	for typ, i := reflect.TypeFor[C](), 0; i < typ.NumField(); i++ {
		if name := typ.Field(i).Name; typ.Field(i).IsExported() && bad[name] == nil &&
			!slices.Contains(free, name) {
			t.Errorf("field %s has no bad value in the table", name)
		}
	}
	all := good
	fields := slices.Sorted(maps.Keys(bad))
	for _, field := range fields {
		for i, change := range bad[field] {
			cfg := good
			change(&cfg)
			names(t, build(cfg), sentinel, field, i)
			change(&all)
		}
	}
	err := build(all)
	for _, field := range fields {
		names(t, err, sentinel, field, -1)
	}
}

func names(t *testing.T, err, sentinel error, field string, at int) {
	t.Helper()
	if err == nil || !errors.Is(err, sentinel) || !strings.Contains(err.Error(), "Config."+
		field+": ") {
		t.Errorf("bad value %d of %s: error %v, want one with %q that names the field", at, field,
			err, sentinel)
	}
}
