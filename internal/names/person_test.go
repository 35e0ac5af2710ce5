package names_test

import (
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"
	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"

	"github.com/sluice-deploy/sluice/internal/names"
)

func TestPerson(t *testing.T) {
	t.Parallel()
	for _, same := range [][2]string{
		{"alice", " alice\t"},
		{"René", "Rene\u0301"},
		{"Å", "\u212B"},
		{"각", "\u1100\u1161\u11A8"},
		{"a\u0323\u0307", "a\u0307\u0323"},
		{"al\u200bice", "alice"},
		{"al\u00adice", "alice"},
		{"\u2066bob", "bob"},
		{"bob\ufe0f", "bob"},
	} {
		require.Equal(t, names.Person(same[0]), names.Person(same[1]), "%+q", same)
	}
	require.NotEqual(t, names.Person("Rene"), names.Person("René"))
	require.NotEqual(t, names.Person("a b"), names.Person("ab"))
}

// Every character, and any order of characters, is decomposed as golang.org/x/text does it.
func TestPersonIsNFD(t *testing.T) {
	t.Parallel()
	shown := func(s string) string {
		return strings.TrimSpace(strings.Map(func(c rune) rune {
			if unicode.In(c, unicode.Cf, unicode.Variation_Selector,
				unicode.Other_Default_Ignorable_Code_Point) {
				return -1
			}
			return c
		}, s))
	}
	var decomposed []rune
	for c := rune(0x80); c <= unicode.MaxRune; c++ {
		if c >= 0xD800 && c < 0xE000 {
			continue
		}
		s := string(c)
		if shown(s) != s || norm.NFD.PropertiesString(s).Decomposition() == nil &&
			norm.NFD.PropertiesString(s).CCC() == 0 && names.Person(s) == s {
			continue
		}
		decomposed = append(decomposed, c)
		if got := names.Person(s); got != norm.NFD.String(s) {
			// Unicode after 15.0 has more characters.
			require.Equal(t, s, got, "%U", c)
		}
	}
	require.Greater(t, len(decomposed), 12000)
	letters := rapid.OneOf(rapid.SampledFrom(decomposed), rapid.RuneFrom([]rune("ab\u0301\u0323")))
	rapid.Check(t, func(rt *rapid.T) {
		s := rapid.StringOfN(letters, 0, 12, -1).Draw(rt, "s")
		require.Equal(rt, shown(norm.NFD.String(s)), names.Person(s))
		require.Equal(rt, names.Person(s), names.Person(norm.NFC.String(s)))
	})
}
