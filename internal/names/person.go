package names

import (
	_ "embed"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
)

// Person returns the form in which the name of an actor is compared, apart from the case of its
// letters (strings.EqualFold): without spaces around it, without characters that show nothing, and
// in Unicode's form NFD, so that "é" is the same as "e" with a combining accent (Unicode Standard
// Annex 15).
func Person(s string) string {
	if isASCII(s) {
		return strings.TrimSpace(s)
	}
	var out []rune
	for _, c := range s {
		out = append(out, decompose(c)...)
	}
	out = slices.DeleteFunc(out, showsNothing)
	order(out)
	return strings.TrimSpace(string(out))
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

func showsNothing(c rune) bool {
	return unicode.Is(unicode.Cf, c) || unicode.Is(unicode.Variation_Selector, c) ||
		unicode.Is(unicode.Other_Default_Ignorable_Code_Point, c)
}

// order sorts each run of combining characters by their classes, as the Unicode Standard, section
// 3.11, orders them.
func order(s []rune) {
	classes := normalization().classes
	for i := 0; i < len(s); {
		end := i + 1
		if classes[s[i]] != 0 {
			for end < len(s) && classes[s[end]] != 0 {
				end++
			}
			slices.SortStableFunc(s[i:end],
				func(a, b rune) int { return int(classes[a]) - int(classes[b]) })
		}
		i = end
	}
}

// The Hangul syllables are decomposed by arithmetic: the Unicode Standard, section 3.12.
const (
	hangulS, hangulL, hangulV, hangulT  = 0xAC00, 0x1100, 0x1161, 0x11A7
	hangulCount, hangulPerL, hangulPerV = 11172, 588, 28
)

// decompose returns the full canonical decomposition of c.
func decompose(c rune) []rune {
	if s := c - hangulS; s >= 0 && s < hangulCount {
		list := []rune{hangulL + s/hangulPerL, hangulV + s%hangulPerL/hangulPerV}
		if t := s % hangulPerV; t > 0 {
			list = append(list, hangulT+t)
		}
		return list
	}
	if list, ok := normalization().decompositions[c]; ok {
		return list
	}
	return []rune{c}
}

// nfd has a line for each character with a canonical decomposition (the character and the full
// decomposition) and for each range of characters with a combining class other than 0 (the first,
// "-" and the last, and the class in decimal). It is of Unicode 15.0; Unicode never changes a
// decomposition or a class once it is assigned.
//
//go:embed nfd.txt
var nfd string

type tables struct {
	decompositions map[rune][]rune
	classes        map[rune]uint8
}

var normalization = sync.OnceValue(func() tables {
	t := tables{decompositions: map[rune][]rune{}, classes: map[rune]uint8{}}
	hex := func(s string) rune {
		n, err := strconv.ParseUint(s, 16, 32)
		if err != nil {
			panic("nfd.txt: " + err.Error())
		}
		return rune(n)
	}
	for line := range strings.Lines(nfd) {
		fields := strings.Fields(line)
		if first, last, ok := strings.Cut(fields[0], "-"); ok {
			class, err := strconv.ParseUint(fields[1], 10, 8)
			if err != nil {
				panic("nfd.txt: " + err.Error())
			}
			for c := hex(first); c <= hex(last); c++ {
				t.classes[c] = uint8(class)
			}
			continue
		}
		var to []rune
		for _, field := range fields[1:] {
			to = append(to, hex(field))
		}
		t.decompositions[hex(fields[0])] = to
	}
	return t
})
