package check

import (
	"regexp"
	"slices"
	"strings"
)

// Words of which placeholders are made. They are compared in lower case, without separators.
var (
	// unfilled are placeholders as a whole.
	unfilled = []string{"todo", "fixme", "tbd", "tba", "tbc", "changeme", "changeit", "changethis",
		"replaceme",
		"replacethis", "fillme", "fillmein", "fillin", "setme", "insertme", "dummy", "placeholder",
		"xxx",
		"notset", "undefined value", "tobedefined", "tobedetermined", "tobeset", "tobefilled",
		"tobeprovided",
		"tobeconfigured", "tobeannounced", "tobechanged", "tobereplaced", "tobeconfirmed",
		"pleaseset", "pleasechange",
		"pleasefill", "pleasefillin", "lorem", "loremipsum", "somepassword", "somesecret",
		"mypassword", "mysecret",
		"mysecretkey", "myapikey", "yourpassword", "yoursecret", "yourkey", "yourapikey",
		"yourtoken", "yourname",
		"yourdomain", "yourhost", "yourusername", "youruser", "notarealpassword", "notreal",
		"secrethere", "keyhere", "redacted", "notsetyet", "notyetset", "notyetconfigured", "notyetknown"}
	// samples begin placeholders that one of stands for end.
	samples   = []string{"dummy", "sample", "example", "fake"}
	standsFor = []string{"value", "key", "token", "secret", "password", "passwd", "host", "url",
		"apikey", "domain"}
	// inserts are verbs that ask in upper case before one of standsFor: INSERT_URL.
	inserts = []string{"insert", "replace", "enter", "fill", "paste"}
	// verbs are the imperatives of placeholders, objects the words that follow them.
	verbs = []string{"change", "replace", "insert", "enter", "set", "put", "fill", "add", "provide",
		"update", "edit", "specify",
		"configure", "define", "adjust", "supply", "paste"}
	objects = []string{"me", "this", "it", "here", "now", "your", "my", "in", "before", "with",
		"value", "later", "please", "pls", "real", "actual"}
	owners = []string{"your"}
	// tags are marks with a meaning that stand in angle brackets.
	tags = []string{"pad", "unk", "mask", "cls", "sep", "eos", "bos", "s", "br", "html", "body",
		"div", "span", "none", "nil", "null", "unset", "init", "clinit", "rootdir"}
)

var (
	inBrackets = regexp.MustCompile(
		`^(?:<<?\s*[A-Za-z][\w .,'/:-]*\s*>>?|\[(?i:your|insert|enter|replace|set|put|change|add)\b[^\[\]]*\]|\{(?i:your|insert|enter|replace|set|put|change|add)\b[^{}]*\})$`)
	inMarks = regexp.MustCompile(
		`^(?:__[A-Z][A-Z0-9_-]*__|@@?[A-Za-z][\w.-]*@@?|##[A-Za-z][\w.-]*##|%%[A-Za-z][\w.-]*%%|~~[A-Za-z][\w.-]*~~|\$\$[A-Za-z][\w.-]*\$\$|#\{[A-Za-z][\w.-]*\}#)$`)
	noteFirst = regexp.MustCompile(`^(?:TODO|FIXME|TBD|XXX)(?:[\s:_!.(-]|$)`)
	crosses   = regexp.MustCompile(`^(?:[xX*?]{3,}|[A-Z]{1,4}X{12,}|(?:[xX*?]{2,}[-_. :]?){2,})$`)
	yourFirst = regexp.MustCompile(`(?i)(?:^|[/@:.=,])your[-_ ]`)
)

// isUnfilled reports whether a value stands where a person was to fill one in.
func isUnfilled(value string) bool {
	value = strings.TrimSpace(value)
	if len(value) < 3 || len(value) > 80 || strings.IndexByte(value, '\n') >= 0 {
		return false
	}
	switch value[0] {
	case '<', '[', '{':
		if inBrackets.MatchString(value) {
			inner := strings.ToLower(strings.Trim(value, "<>[]{} /"))
			return !slices.Contains(tags, inner) && len(inner) > 1
		}
	case '_', '@', '#', '%', '~', '$':
		if inMarks.MatchString(value) {
			return true
		}
		if rest := strings.TrimLeft(value, "$%"); rest != value && isName(rest) {
			value = rest // $TODO
		}
	case 'T', 'F', 'X':
		if noteFirst.MatchString(value) {
			return true
		}
	}
	return crosses.MatchString(value) || asks(value)
}

func isName(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool {
		return r != '_' && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) < 0
}

// asks reports whether the words of a value ask for another one.
func asks(value string) bool {
	if !mayAsk(value) {
		return false
	}
	words := nameParts(value)
	if len(words) == 0 || len(words) > 8 {
		return false
	}
	for len(words) > 1 && strings.Trim(words[len(words)-1], "0123456789!") == "" {
		words = words[:len(words)-1]
	}
	whole := strings.TrimRight(strings.Join(words, ""), "0123456789!")
	if slices.Contains(unfilled, whole) || strings.Contains(whole, "changeme") ||
		strings.Contains(whole, "replaceme") {
		return true
	}
	address := strings.ContainsAny(value, "/@:.")
	first, last := words[0], words[len(words)-1]
	switch {
	case (first == "please" || first == "pls") && len(words) > 1 &&
		slices.Contains(verbs, words[1]):
		return true
	case slices.Contains(verbs, first) && len(words) > 1 && (slices.Contains(objects, words[1]) ||
		last == "here" || last == "me" || last == "please"):
		return true
	case len(words) >= 2 && len(words) <= 3 && slices.Contains(standsFor, last) && !address &&
		(slices.Contains(samples, first) && !strings.Contains(value, " ") ||
			slices.Contains(inserts, first) && value == strings.ToUpper(value)):
		return true
	case slices.Contains(owners, first) && len(words) > 1 && !strings.Contains(value, "  "):
		return len(words) <= 5
	case last == "here" && len(words) > 1 && len(words) <= 5 && !strings.Contains(value, "://"):
		return slices.ContainsFunc(words, func(w string) bool {
			return slices.Contains(owners, w) || slices.Contains(verbs, w) || w == "goes"
		}) ||
			!strings.Contains(value, " ")
	case first == "to" && len(words) >= 3 && words[1] == "be" && !address:
		return len(words) == 3
	}
	for i, w := range words { // your-db-host.example.com, https://YOUR_DOMAIN/
		if w == "placeholder" && len(words) <= 3 && !strings.Contains(value, " ") ||
			w == "your" && i+1 < len(words) && !strings.Contains(value, " ") &&
				yourFirst.MatchString(value) ||
			(strings.HasPrefix(w, "yourdomain") || strings.HasPrefix(w, "yourcompany") ||
				strings.HasPrefix(w, "yourhost")) && !strings.Contains(value, " ") {
			return true
		}
	}
	return false
}

// hints are substrings of placeholders, so that most values need no closer look.
var hints = []string{"your", "change", "replac", "insert", "todo", "tbd", "tba", "tbc", "fixme",
	"fill", "place", "here", "please", "pls", "set", "be", "xxx",
	"my", "some", "enter", "dummy", "put", "add", "provid", "updat", "edit", "specif", "configur",
	"defin", "adjust", "suppl", "paste", "not", "lorem", "sample", "example", "fake",
	"redact"}

func mayAsk(value string) bool {
	lower := strings.ToLower(value)
	return slices.ContainsFunc(hints, func(h string) bool { return strings.Contains(lower, h) })
}
