// Package check collects everything that is wrong with a configuration, so that a constructor
// reports all of it at once.
package check

import (
	"errors"
	"fmt"
	"time"
)

// Problems collects the problems of one Config. Each is an error such as
//
//	mirror: Config.Keep: -1: want 0 (default 3) or more: invalid
type Problems struct {
	Package  string // the beginning of the errors
	Sentinel error  // the end of the errors
	errs     []error
}

// Add notes a problem of a field.
func (p *Problems) Add(field, format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf("%s: Config.%s: %s: %w", p.Package, field,
		fmt.Sprintf(format, args...), p.Sentinel))
}

// Join notes a problem of a field that another package has found, when there is one.
func (p *Problems) Join(field string, err error) {
	if err != nil {
		p.errs = append(p.errs, fmt.Errorf("%s: Config.%s: %w: %w", p.Package, field, err,
			p.Sentinel))
	}
}

// Require notes a field that is required and not given.
func (p *Problems) Require(field string, given bool) {
	if !given {
		p.Add(field, "is required")
	}
}

// Duration sets a zero field to its default and notes a negative one.
func (p *Problems) Duration(field string, v *time.Duration, or time.Duration) {
	if *v < 0 {
		p.Add(field, "%s: want 0 (default %s) or more", *v, or)
	} else if *v == 0 {
		*v = or
	}
}

// Number sets a zero field to its default and notes a negative one.
func Number[T int | int64](p *Problems, field string, v *T, or T) {
	if *v < 0 {
		p.Add(field, "%d: want 0 (default %d) or more", *v, or)
	} else if *v == 0 {
		*v = or
	}
}

// Err is all problems, or nil.
func (p *Problems) Err() error { return errors.Join(p.errs...) }
