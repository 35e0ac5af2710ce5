// Package nearest finds the name that a misspelt one most likely stands for.
package nearest

import "strings"

// maxName bounds the work: a longer name is no slip of the pen.
const maxName = 32

// Of returns the known name that is most likely meant by name, or "". Upper and lower case of name
// are the same; known are in lower case.
func Of(name string, known []string) string {
	name = strings.ToLower(strings.TrimSpace(name))
	if name == "" || len(name) > maxName {
		return ""
	}
	best, bestDistance := "", max(1, (len(name)+1)/2)+1
	for _, k := range known {
		d := distance(name, k)
		if strings.HasPrefix(k, name) || strings.HasPrefix(name, k) {
			d = 1
		}
		if d < bestDistance {
			best, bestDistance = k, d
		}
	}
	return best
}

// distance is the number of insertions, deletions and substitutions that turn a into b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
