package pcre_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync/internal/pcre"
)

func TestMatch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		expr, text string
		want       []string // nil for no match
	}{
		{`^/a$`, "/a\n", []string{"/a"}},
		{`^/a\Z`, "/a\n", []string{"/a"}},
		{`^/a\z`, "/a\n", nil},
		{`^a.b$`, "a\nb", nil},
		{`(?s)^a.b$`, "a\nb", []string{"a\nb"}},
		{`(?m)^b$`, "a\nb\nc", []string{"b"}},
		{`^(?!/api)/(\w+)`, "/site/x", []string{"/site", "site"}},
		{`^(?!/api)/(\w+)`, "/api/x", nil},
		{`(?<=/v)\d+(?!\d|\.)`, "/v1.2/v34", []string{"34"}},
		{`(?<!a)b`, "abb", []string{"b"}},
		{`(a)|(b)`, "b", []string{"b", "", "b"}},
		{`(?<x>a)(b)(?P<y>c)`, "abc", []string{"abc", "a", "b", "c"}},
		{`(a+)+b`, "aaab", []string{"aaab", "aaa"}},
		{`a++b`, "aaab", []string{"aaab"}},
		{`a++ab`, "aaab", nil},
		{`(?>a+)ab`, "aaab", nil},
		{`(\w)\1`, "abccd", []string{"cc", "c"}},
		{`(?i)(a)\1`, "aA", []string{"aA", "a"}},
		{`(?<q>['"]).*?\k<q>`, `x'a"b'c'`, []string{`'a"b'`, "'"}},
		{`a{2}`, "aaa", []string{"aa"}},

		{`a{2,}?`, "aaa", []string{"aa"}},
		{`[]a]+`, "a]", []string{"a]"}},
		{`[^]a]+`, "a]b", []string{"b"}},
		{`[[:alpha:]-]+`, "1a-b2", []string{"a-b"}},
		{`[\d-z]+`, "-5z", []string{"-5z"}},
		{`\Qa.b\E.`, "a.bc", []string{"a.bc"}},
		{`(?i:A)b`, "ab", []string{"ab"}},
		{`(?i:A)b`, "aB", nil},
		{`(a(?i)b|c)d`, "Cd", []string{"Cd", "C"}},
		{`\bfoo\B`, "a foox", []string{"foo"}},

		{`a\R`, "a\r\n", []string{"a\r\n"}},
		{`\h\S`, "\t\xe9", []string{"\t\xe9"}},
		{`\w+`, "\xc3\xa9a", []string{"a"}},
		{`(?x) a b # comment
			c`, "abc", []string{"abc"}},
		{`(a*)*`, "b", []string{"", ""}},
		{`(?:a|ab)(c|bcd)(d*)`, "abcd", []string{"abcd", "bcd", ""}},
		{`^(a|b)*$`, "abab", []string{"abab", "b"}},
	} {
		re, err := pcre.Compile(c.expr, false)
		if err != nil {
			require.ErrorIs(t, err, pcre.ErrUnsupported, c.expr)
			require.Nil(t, c.want, c.expr)
			continue
		}
		got, err := re.Match(c.text)
		require.NoError(t, err, c.expr)
		require.Equal(t, c.want, got, "%q on %q", c.expr, c.text)
	}
}

// Syntax of PCRE that this package does not have is ErrUnsupported, never read in another way.
func TestUnsupported(t *testing.T) {
	t.Parallel()
	for _, expr := range []string{`(?R)`, `(?1)(a)`, `(?|a|b)`, `(?(1)a|b)`, `a\Kb`, `(*UTF8)é`,
		`\pL`, `(?U)a+`, `\X`, `\G`, `[[.a.]]`, `(?J)(?<a>b)`, `a{,2}`, `\12`} {
		_, err := pcre.Compile(expr, false)
		require.ErrorIs(t, err, pcre.ErrUnsupported, expr)
	}
	for _, expr := range []string{`(`, `)`, `a**b(`, `[a`, `*a`, `a{2,1}`, `(?<a>b)(?<a>c)`, `\`,
		`[b-a]`, `(a)\2`} {
		_, err := pcre.Compile(expr, false)
		require.Error(t, err, expr)
	}
}

func TestTooComplex(t *testing.T) {
	t.Parallel()
	re, err := pcre.Compile(`^(a+)+$`, false)
	require.NoError(t, err)
	_, err = re.Match(strings.Repeat("a", 60) + "b")
	require.ErrorIs(t, err, pcre.ErrTooComplex)
}
