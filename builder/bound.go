package builder

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

var (
	wholeNumber = regexp.MustCompile(`^(0|[1-9][0-9]{0,15})$`)
	sizeValue   = regexp.MustCompile(`^([1-9][0-9]{0,15})([kKmMgG]?)$`)
)

// maxAmount is the largest whole number that each reader of JSON keeps exactly (RFC 8259 section
// 6).
const maxAmount = 1<<53 - 1

// amount is the number, or the bytes, that v stands for, and -1 for a value of another form.
func (t Type) amount(v string) int64 {
	unit := int64(1)
	switch t {
	case TypePort:
		if !isNumber(v, 65535) {
			return -1
		}
	case TypeInt:
		if !wholeNumber.MatchString(v) {
			return -1
		}
	case TypeSize:
		part := sizeValue.FindStringSubmatch(v)
		if part == nil {
			return -1
		}
		v = part[1]
		unit = map[string]int64{"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}[strings.ToLower(
			part[2])]
	default:
		return -1
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n > maxAmount/unit {
		return -1
	}
	return n * unit
}

// form describes the values of a type that has an amount.
func (t Type) form() string {
	switch t {
	case TypePort:
		return "a port from 1 to 65535"
	case TypeSize:
		return "a size such as 512m: a whole number above 0, then k, m, g or nothing"
	}
	return "a whole number"
}

// declaredBounds returns the problem of Pattern, Min and Max, or nil.
func (p Param) declaredBounds() error {
	if _, err := p.pattern(); err != nil {
		return fmt.Errorf("pattern: %w", err)
	}
	for _, bound := range [][2]string{{"min", p.Min}, {"max", p.Max}} {
		name, v := bound[0], bound[1]
		if v == "" {
			continue
		}
		switch p.Type {
		case TypeInt, TypeSize, TypePort:
		default:
			return fmt.Errorf("only the types int, size and port have a %s", name)
		}
		if p.Type.amount(v) < 0 {
			return fmt.Errorf("%s %s is not %s", name, quote(v), p.Type.form())
		}
	}
	if p.Min != "" && p.Max != "" && p.Type.amount(p.Min) > p.Type.amount(p.Max) {
		return errors.New("min is above max")
	}
	return nil
}

// pattern compiles Pattern, so that it prefers the longest match at a place.
func (p Param) pattern() (*regexp.Regexp, error) {
	compiled, err := regexp.Compile(p.Pattern)
	if err == nil {
		compiled.Longest()
	}
	return compiled, err
}

// beyond names the pattern or the bound of p that the value misses, or is "".
func (p Param) beyond(v string) string {
	if p.Pattern != "" {
		compiled, err := p.pattern()
		if err != nil {
			return "a match of " + p.Pattern
		}
		if at := compiled.FindStringIndex(v); at == nil || at[0] != 0 || at[1] != len(v) {
			return "a match of " + p.Pattern
		}
	}
	n := p.Type.amount(v)
	switch {
	case p.Min != "" && n < p.Type.amount(p.Min):
		return "at least " + p.Min
	case p.Max != "" && n > p.Type.amount(p.Max):
		return "at most " + p.Max
	}
	return ""
}
