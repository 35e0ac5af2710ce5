package names_test

import (
	"crypto/sha256"
	"encoding/base32"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-deploy/sluice/internal/depcheck"
	"github.com/sluice-deploy/sluice/internal/names"
	"github.com/sluice-deploy/sluice/internal/names/namestest"
)

var checks = map[namestest.Word]func(string) error{
	namestest.Cluster:     names.Cluster,
	namestest.Version:     names.Version,
	namestest.Task:        names.Task,
	namestest.Environment: names.Environment,
	namestest.Instance:    names.Instance,
}

func TestSamples(t *testing.T) {
	t.Parallel()
	for _, word := range namestest.Words() {
		if checks[word] == nil {
			t.Errorf("no check for %s", word)
		}
		namestest.Run(t, word, checks[word])
	}
}

func TestSampleCasesAreUnique(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, s := range namestest.Samples() {
		key := string(s.Word) + " " + s.Case
		if seen[key] {
			t.Errorf("two samples are %q", key)
		}
		seen[key] = true
	}
}

// The grammars of the systems that the names are used in, from their own sources.
var (
	// distribution/reference v0.6.0, regexp.go: pathComponent.
	repositoryComponent = regexp.MustCompile(`^[a-z0-9]+(?:(?:[._]|__|[-]+)[a-z0-9]+)*$`)
	// distribution/reference v0.6.0, regexp.go: tag.
	tag = regexp.MustCompile(`^[\w][\w.-]{0,127}$`)
	// k8s.io/apimachinery, pkg/util/validation: labelValueFmt, 63 bytes at most.
	labelValue = regexp.MustCompile(`^(?:(?:[A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$`)
	// k8s.io/apimachinery, pkg/util/validation: dns1123LabelFmt, 63 bytes at most.
	dnsLabel = regexp.MustCompile(`^[a-z0-9](?:[-a-z0-9]*[a-z0-9])?$`)
	// The bytes that a name may hold unquoted in an Nginx configuration.
	nginxWord = regexp.MustCompile(`^[A-Za-z0-9._:-]+$`)
)

// holdsElsewhere fails t where a name that is good as a word is refused by a system that takes it.
func holdsElsewhere(t *testing.T, s string) {
	t.Helper()
	within := func(re *regexp.Regexp, limit int) bool {
		return len(s) <= limit &&
			re.MatchString(s)
	}
	fit := map[namestest.Word]map[string]bool{
		namestest.Cluster: {
			"OCI repository component": within(repositoryComponent, 255),
			"Kubernetes label value":   within(labelValue, 63),
			"lower case":               s == strings.ToLower(s),
		},
		namestest.Version: {"OCI tag": within(tag, 128),
			"Kubernetes label value": within(labelValue, 63)},
		namestest.Task: {"OCI tag": within(tag, 128),
			"Kubernetes label value": within(labelValue, 63)},
		namestest.Environment: {"DNS label": within(dnsLabel, 32)},
		namestest.Instance:    {"Nginx word": within(nginxWord, 128)},
	}
	for word, systems := range fit {
		if checks[word](s) != nil {
			continue
		}
		for system, ok := range systems {
			if !ok {
				t.Errorf("%s %q is no %s", word, s, system)
			}
		}
	}
}

func TestGoodNamesFitElsewhere(t *testing.T) {
	t.Parallel()
	for _, s := range namestest.Samples() {
		holdsElsewhere(t, s.Name)
	}
}

// TestClusterIsComponent holds the cluster's grammar to the repository component's over all texts
// of up to five bytes of an alphabet that has one byte of each kind.
func TestClusterIsComponent(t *testing.T) {
	t.Parallel()
	var walk func(s string, left int)
	walk = func(s string, left int) {
		if got, want := names.Cluster(s) == nil, repositoryComponent.MatchString(s); got != want {
			t.Errorf("cluster %q is good: %v, want %v", s, got, want)
		}
		if left > 0 {
			for _, c := range "a0._-A" {
				walk(s+string(c), left-1)
			}
		}
	}
	walk("", 5)
}

func TestErrorNamesTheFault(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		err  error
		want string
	}{
		{names.Cluster(""), `cluster "": is empty: want 1 to 63 lower-case letters`},
		{names.Cluster("Hello"), `cluster "Hello": byte 1 is the capital 'H': want`},
		{names.Cluster("a._b"),
			`cluster "a._b": byte 3 is '_' after '.': separators do not touch: want`},
		{names.Cluster("a\nb"), `cluster "a\nb": byte 2 is '\n': want`},
		{names.Cluster("a品"), `cluster "a\u54c1": byte 2 is '\u54c1': want`},
		{names.Cluster("a\xff"), `cluster "a\xff": byte 2 is 0xff: want`},
		{names.Cluster("a-"),
			`cluster "a-": byte 2 is '-': the last one has to be a letter or digit: want`},
		{names.Cluster(strings.Repeat("a", 100)), `aaaa"...: has 100 bytes: want`},
		{names.Version("1.0+b"), `version "1.0+b": byte 4 is '+': write '_' in its place: want`},
		{names.Environment("2nd"),
			`environment "2nd": byte 1 is '2': the first one has to be a letter: want`},
		{names.Environment("-a"),
			`environment "-a": byte 1 is '-': the first one has to be a letter: want`},
		{names.Environment("local"), `environment "local": the word is reserved: choose another`},
		{names.Instance("a b"), `instance "a b": byte 2 is ' ': want`},
	} {
		if tc.err == nil || !strings.Contains(tc.err.Error(), tc.want) {
			t.Errorf("got %v, want an error with %s", tc.err, tc.want)
		}
	}
}

func TestDNSLabel(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, want string }{
		{"hello-web", "hello-web"},
		{"2048", "2048"},
		{strings.Repeat("a", 63), strings.Repeat("a", 63)},
		{"hello_web", "hello-web-x7k5o2es3m9g5"},
		{"hello.web", "hello-web-x"},
		{"Hello-Web", "hello-web-x"},
		{"", "x"},
		{"__", "x"},
	} {
		got := names.DNSLabel(tc.name)
		if got != tc.want && (tc.name == tc.want || !strings.HasPrefix(got, tc.want)) {
			t.Errorf("DNSLabel(%q) = %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestDNSLabelIsInjective(t *testing.T) {
	t.Parallel()
	labels := map[string]string{}
	add := func(name string) {
		label := names.DNSLabel(name)
		if before, ok := labels[label]; ok && before != name {
			t.Errorf("%.80q and %.80q share the label %q", before, name, label)
		}
		labels[label] = name
	}
	for _, s := range namestest.Samples() {
		add(s.Name)
		add(names.DNSLabel(s.Name)) // the label of another name is a name, too
		add(strings.ToUpper(s.Name))
		add(s.Name + strings.Repeat("b", 64))
	}
	for _, a := range "abAB" {
		for _, b := range ".-_:" {
			for _, c := range "abAB" {
				add(string([]rune{a, b, c}))
			}
		}
	}
}

func FuzzNames(f *testing.F) {
	for _, s := range namestest.Samples() {
		f.Add(s.Name, "a")
	}
	f.Add("hello_web", names.DNSLabel("hello_web"))
	f.Fuzz(func(t *testing.T, a, b string) {
		holdsElsewhere(t, a)
		for word, check := range checks {
			err := check(a)
			if err != nil && (len(err.Error()) > 700 ||
				strings.ContainsFunc(err.Error(), notPrintable)) {
				t.Errorf("%s: error %q", word, err)
			}
		}
		label := names.DNSLabel(a)
		if len(label) > 63 || !dnsLabel.MatchString(label) {
			t.Errorf("DNSLabel(%q) = %q is no DNS label", a, label)
		}
		if a != b && label == names.DNSLabel(b) {
			t.Errorf("%q and %q share the label %q", a, b, label)
		}
	})
}

func notPrintable(r rune) bool { return r < ' ' || r > '~' }

func TestImports(t *testing.T) {
	t.Parallel()
	const root = "github.com/sluice-deploy/sluice/internal/names"
	depcheck.StdlibOnly(t, root, "net/http", "regexp", "os/exec")
	depcheck.StdlibOnly(t, root+"/namestest", "net/http")
}

func TestQuote(t *testing.T) {
	t.Parallel()
	if got := names.Quote("a\x1b[31m"); got != `"a\x1b[31m"` {
		t.Errorf("got %s", got)
	}
	got := names.Quote(strings.Repeat("é", 100))
	if !strings.HasSuffix(got, `"...`) || slices.ContainsFunc([]rune(got), notPrintable) {
		t.Errorf("got %s", got)
	}
}

func TestDNSLabelHash(t *testing.T) {
	t.Parallel()
	encoding := base32.HexEncoding.WithPadding(base32.NoPadding)
	for _, name := range []string{"", "_", "hello_web", strings.Repeat("x", 300)} {
		sum := sha256.Sum256([]byte(name))
		want := "x" + strings.ToLower(encoding.EncodeToString(sum[:]))[:12]
		if got := names.DNSLabel(name); !strings.HasSuffix(got, want) {
			t.Errorf("label of %.20q is %s, want it to end with %s", name, got, want)
		}
	}
}
