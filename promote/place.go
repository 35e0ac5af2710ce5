package promote

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
)

// recordPlace is the place of an entry: the only members of a record that Verify reads.
type recordPlace struct {
	Seq     uint64 `json:"seq"`
	Cluster string `json:"cluster"`
}

// placeIn reads the place in a record. It decodes the whole record unless that has a chain: then a
// record that is no JSON is found by the chain, and quickPlace will do.
func placeIn(record []byte, chained bool) (recordPlace, error) {
	if chained {
		if at, ok := quickPlace(record); ok {
			return at, nil
		}
	}
	var at recordPlace
	err := json.Unmarshal(record, &at)
	return at, err
}

// quickPlace reads the place in one pass that skips over the values of other members. ok is false
// for everything that the programs of this package do not write: a place that stands there twice,
// in other letters, with an escape or in bytes above 127, and white space between tokens.
func quickPlace(record []byte) (at recordPlace, ok bool) {
	rest, ok := bytes.CutPrefix(record, []byte("{"))
	for seen := 0; ok; {
		var name, value []byte
		if name, rest, ok = quickText(rest); !ok || len(rest) == 0 || rest[0] != ':' {
			return recordPlace{}, false
		}
		if value, rest, ok = quickValue(rest[1:]); !ok || len(rest) == 0 {
			return recordPlace{}, false
		}
		switch {
		case string(name) == "seq" && seen&1 == 0:
			seen |= 1
			var err error
			at.Seq, err = strconv.ParseUint(string(value), 10, 64)
			ok = err == nil
		case string(name) == "cluster" && seen&2 == 0 && value[0] == '"':
			seen |= 2
			at.Cluster = string(value[1 : len(value)-1])
			ok = !strings.ContainsFunc(at.Cluster, func(r rune) bool {
				return r < ' ' || r > '~' || r == '\\'
			})
		case strings.EqualFold(string(name), "seq"), strings.EqualFold(string(name), "cluster"),
			bytes.IndexByte(name, '\\') >= 0:
			ok = false
		}
		switch {
		case !ok:
		case rest[0] == ',':
			rest = rest[1:]
		default:
			return at, string(rest) == "}" && seen&1 != 0
		}
	}
	return recordPlace{}, false
}

// quickText returns the text between the quotes at the beginning, and the bytes behind it.
func quickText(from []byte) (text, rest []byte, ok bool) {
	if len(from) == 0 || from[0] != '"' {
		return nil, nil, false
	}
	for end := 1; ; end++ {
		n := bytes.IndexByte(from[end:], '"')
		if n < 0 {
			return nil, nil, false
		}
		end += n
		slashes := 0
		for from[end-1-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return from[1:end], from[end+1:], true
		}
	}
}

// quickValue returns the value at the beginning, and the bytes behind it.
func quickValue(from []byte) (value, rest []byte, ok bool) {
	depth := 0
	for rest = from; len(rest) > 0; {
		switch rest[0] {
		case '"':
			if _, rest, ok = quickText(rest); !ok {
				return nil, nil, false
			}
		case '{', '[':
			depth++
			rest = rest[1:]
		case '}', ']':
			if depth == 0 {
				return from[:len(from)-len(rest)], rest, len(rest) < len(from)
			}
			depth--
			rest = rest[1:]
		case ',':
			if depth == 0 {
				return from[:len(from)-len(rest)], rest, len(rest) < len(from)
			}
			rest = rest[1:]
		default:
			rest = rest[1:]
		}
	}
	return nil, nil, false
}
