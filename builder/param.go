package builder

import (
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-deploy/sluice/internal/names"
)

// Type is the form that a value of a parameter must have. No type admits a newline, a quote, a
// backslash, "$", a backtick or any other character that has a meaning to a shell or to the
// Dockerfile's grammar, and none admits a leading "-".
type Type string

// The types of parameters.
const (
	// a cluster: 1 to 63 lower-case letters, digits and single separators ".", "_", "__" or a run
	// of "-"
	TypeName Type = "name"
	// an IPv4 address or a DNS name
	TypeHost Type = "host"
	// an IPv4 or IPv6 address
	TypeIP Type = "ip"
	// 1 to 65535
	TypePort Type = "port"
	// a numeric user id above 0, so never root
	TypeUID Type = "uid"
	// an absolute, clean path below /
	TypePath Type = "path"
	// a relative, clean path inside the build context
	TypeFile Type = "file"
	// "scratch" or an image by digest: name[:tag]@sha256:…
	TypeImage Type = "image"
	// letters, digits, ".", "_", "+" and "-"
	TypeWord Type = "word"
	// words, which may hold ":" too, with one space between them: a list of packages
	TypeWords Type = "words"
	// one of Param.Values
	TypeEnum Type = "enum"
	// a whole number from 0 to 9007199254740991, without leading zeros, from Param.Min to Param.Max
	TypeInt Type = "int"
	// a size in bytes as the JVM, Nginx and Docker read it: a whole number above 0, then k, m or g
	// (1024, 1024², 1024³ bytes) or nothing; from Param.Min to Param.Max
	TypeSize Type = "size"
	// "true" or "false"
	TypeBool Type = "bool"
)

// Param is one declared parameter of a template.
type Param struct {
	// Name stands between {{ and }}: an upper-case letter, then upper-case letters, digits
	// and "_".
	Name string `json:"name"`
	// Description explains the value to a user.
	Description string `json:"description"`
	Type        Type   `json:"type"`
	// Required says that Render needs a value. A parameter that is not required has a Default.
	Required bool   `json:"required,omitempty"`
	Default  string `json:"default,omitempty"`
	// Example is a valid value for forms and documentation. The default is Default.
	Example string `json:"example,omitempty"`
	// Values are the choices of TypeEnum.
	Values []string `json:"values,omitempty"`
	// Pattern is a regular expression of Go's package regexp that the whole value must match, in
	// addition to its type. The default is none.
	Pattern string `json:"pattern,omitempty"`
	// Min and Max bound the values of TypeInt, TypeSize and TypePort; both are values of that type
	// and are allowed themselves. The default is no bound but the type's.
	Min string `json:"min,omitempty"`
	Max string `json:"max,omitempty"`
}

var (
	paramName  = regexp.MustCompile(`^[A-Z][A-Z0-9_]*$`)
	dnsLabel   = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)
	allDigits  = regexp.MustCompile(`^[0-9.]+$`)
	number     = regexp.MustCompile(`^[1-9][0-9]{0,9}$`)
	pathPart   = regexp.MustCompile(`^[A-Za-z0-9._+@][A-Za-z0-9._+@-]*$`)
	imageValue = regexp.MustCompile(
		`^[a-z0-9]+([._:/-]+[a-z0-9]+)*(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?@sha256:[0-9a-f]{64}$`)
	wordValue  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]*$`)
	wordsValue = regexp.MustCompile(
		`^[A-Za-z0-9][A-Za-z0-9._+:-]*( [A-Za-z0-9][A-Za-z0-9._+:-]*)*$`)
)

// maxValue bounds a value in bytes: longer than any path or list of packages that is meant.
const maxValue = 4096

// declared returns the problem of the declaration itself, or nil.
func (p Param) declared() error {
	switch {
	case !paramName.MatchString(p.Name):
		return fmt.Errorf("parameter %q: the name must be an upper-case letter, then upper-case "+
			"letters, digits and _", p.Name)
	case p.Description == "":
		return fmt.Errorf("parameter %s has no description", p.Name)
	case p.Type == TypeEnum && len(p.Values) == 0:
		return fmt.Errorf("parameter %s: type enum needs values", p.Name)
	case p.Type != TypeEnum && len(p.Values) > 0:
		return fmt.Errorf("parameter %s: only type enum has values", p.Name)
	case p.Required && p.Default != "":
		return fmt.Errorf("parameter %s is required, so its default %q is never used: drop one "+
			"of them", p.Name, p.Default)
	case !p.Required && p.Default == "":
		return fmt.Errorf("parameter %s needs a default, or required: true", p.Name)
	case p.Required && p.Example == "" && p.Type != TypeEnum:
		return fmt.Errorf("parameter %s is required and needs an example", p.Name)
	}
	if err := p.declaredBounds(); err != nil {
		return fmt.Errorf("parameter %s: %w", p.Name, err)
	}
	for _, v := range p.Values {
		if !wordValue.MatchString(v) {
			return fmt.Errorf(
				"parameter %s: choice %q is not a word of letters, digits and . _ + -", p.Name, v)
		}
		if reason := p.refuse(v); reason != "" {
			return fmt.Errorf("parameter %s: choice: %s", p.Name, reason)
		}
	}
	for _, v := range []string{p.Default, p.Example} {
		if reason := p.refuse(v); v != "" && reason != "" {
			return fmt.Errorf("parameter %s: %s", p.Name, reason)
		}
	}
	return nil
}

// example is a value that the parameter accepts.
func (p Param) example() string {
	switch {
	case p.Example != "":
		return p.Example
	case p.Default != "":
		return p.Default
	}
	return p.Values[0]
}

// refuse says why v is not a value of p, or "".
func (p Param) refuse(v string) string {
	if reason := unsafe(v); reason != "" {
		return reason
	}
	want := ""
	switch p.Type {
	case TypeName:
		if err := names.Cluster(v); err != nil {
			return err.Error()
		}
	case TypeHost:
		want = unless(isHost(v), "an IPv4 address or a DNS name, such as 10.1.2.3")
	case TypeIP:
		addr, err := netip.ParseAddr(v)
		want = unless(err == nil && addr.Zone() == "", "an IP address, such as 10.1.2.3")
	case TypePort:
		want = unless(isNumber(v, 65535), "a port from 1 to 65535")
	case TypeUID:
		want = unless(isNumber(v, 1<<31-1), "a numeric user id from 1 to 2147483647 (0 is root)")
	case TypePath:
		want = unless(strings.HasPrefix(v, "/") && isPath(v[1:]),
			"an absolute path below / without . or .. parts, such as /home/work")
	case TypeFile:
		want = unless(isPath(v),
			"a relative path inside the build context without . or .. parts, such as app/server.js")
	case TypeImage:
		want = unless(v == "scratch" || imageValue.MatchString(v),
			"scratch or an image by digest, such as registry.example.com/base@sha256:… with 64 "+
				"hex digits")
	case TypeWord:
		want = unless(wordValue.MatchString(v), "one word of letters, digits and . _ + -")
	case TypeWords:
		want = unless(wordsValue.MatchString(v),
			"words of letters, digits and . _ + : - with one space between them")
	case TypeBool:
		want = unless(v == "true" || v == "false", "true or false")
	case TypeInt, TypeSize:
		want = unless(p.Type.amount(v) >= 0, p.Type.form())
	case TypeEnum:
		want = unless(slices.Contains(p.Values, v), "one of "+strings.Join(p.Values, ", "))
	default:
		return fmt.Sprintf("type %q does not exist", p.Type)
	}
	if want == "" {
		want = p.beyond(v)
	}
	if want == "" {
		return ""
	}
	return fmt.Sprintf("value %s is not %s", quote(v), want)
}

func unless(ok bool, want string) string {
	if ok {
		return ""
	}
	return want
}

// unsafe names the first thing in v that could change the Dockerfile's meaning for any type,
// or returns "".
func unsafe(v string) string {
	if v == "" {
		return "the value is empty"
	}
	if len(v) > maxValue {
		return fmt.Sprintf("the value has %d bytes, more than %d", len(v), maxValue)
	}
	for i := range len(v) {
		what := ""
		switch c := v[i]; {
		case c == '\n', c == '\r':
			what = "a newline"
		case c == '"', c == '\'', c == '`':
			what = "a quote " + string(c)
		case c == '\\':
			what = "a backslash"
		case c == '$' && strings.HasPrefix(v[i:], "$("):
			what = "a command substitution $("
		case c == '$':
			what = "a variable sign $"
		case c < ' ', c == 0x7f:
			what = "a control character"
		case c >= 0x80:
			what = "a character outside ASCII"
		default:
			continue
		}
		return fmt.Sprintf("the value has %s at byte %d", what, i+1)
	}
	return ""
}

func isHost(v string) bool {
	if addr, err := netip.ParseAddr(v); err == nil {
		return addr.Is4()
	}
	// A text of digits and dots that is no address, such as 10.1.2.300, is a mistake and no name.
	if len(v) > 253 || allDigits.MatchString(v) {
		return false
	}
	for label := range strings.SplitSeq(v, ".") {
		if !dnsLabel.MatchString(label) {
			return false
		}
	}
	return true
}

func isNumber(v string, limit int) bool {
	n, err := strconv.Atoi(v)
	return err == nil && number.MatchString(v) && n <= limit
}

func isPath(v string) bool {
	if path.Clean("/"+v) != "/"+v {
		return false
	}
	for part := range strings.SplitSeq(v, "/") {
		if !pathPart.MatchString(part) {
			return false
		}
	}
	return true
}

// quote shows a value in a message, cut when it is long.
func quote(v string) string {
	const limit = 80
	if len(v) > limit {
		return fmt.Sprintf("%q…", v[:limit])
	}
	return strconv.Quote(v)
}
