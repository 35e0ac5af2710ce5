package place

import (
	"io/fs"
	"strings"
	"unicode/utf8"
)

// TempPrefix begins the name of every file that a transaction makes beside the targets and removes
// again.
const TempPrefix = ".envconfig-"

// PathProblem returns the reason why p cannot be a target, or "" if it can. A target is a clean
// relative slash-separated path in UTF-8 of at most 4000 bytes, whose names have at most 255 bytes
// and do not begin with [TempPrefix].
func PathProblem(p string) string {
	switch {
	case !utf8.ValidString(p):
		return "is not UTF-8"
	case !fs.ValidPath(p) || p == ".":
		return "is not a clean relative path"
	case strings.ContainsRune(p, 0):
		return "holds a zero byte"
	case len(p) > 4000:
		return "is longer than 4000 bytes"
	}
	for part := range strings.SplitSeq(p, "/") {
		if len(part) > 255 {
			return "has a name longer than 255 bytes"
		}
		if strings.HasPrefix(part, TempPrefix) {
			return "has a name that begins with " + TempPrefix + ", which is reserved"
		}
	}
	return ""
}
