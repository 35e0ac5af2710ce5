package envconfig

import (
	"path"
	"strings"
)

// validPattern reports whether pattern can be given to matchPath.
func validPattern(pattern string) bool {
	for segment := range strings.SplitSeq(pattern, "/") {
		if segment == "" {
			return false
		}
		if _, err := path.Match(segment, ""); err != nil {
			return false
		}
	}
	return true
}

// matchPath matches each segment of name with [path.Match]; "**" stands for any number of segments,
// none included.
func matchPath(pattern, name string) bool {
	return matchSegments(strings.Split(pattern, "/"), strings.Split(name, "/"))
}

// matchSegments keeps the set of pattern positions that can be reached, so that many "**" cost no
// more than one.
func matchSegments(pattern, name []string) bool {
	at := make([]bool, len(pattern)+1)
	at[0] = true
	skipStars(pattern, at)
	for _, segment := range name {
		next := make([]bool, len(pattern)+1)
		for i, p := range pattern {
			if !at[i] {
				continue
			}
			if p == "**" {
				next[i] = true
			} else if ok, _ := path.Match(p, segment); ok {
				next[i+1] = true
			}
		}
		skipStars(pattern, next)
		at = next
	}
	return at[len(pattern)]
}

func skipStars(pattern []string, at []bool) {
	for i, p := range pattern {
		if at[i] && p == "**" {
			at[i+1] = true
		}
	}
}
