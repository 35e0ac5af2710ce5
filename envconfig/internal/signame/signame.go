// Package signame reads the names of Linux signals, on every system: an image may be built
// elsewhere.
package signame

import (
	"strconv"
	"strings"
)

// numbers are the names of signal(7) without SIG. It is no map, which would be made at each start.
var numbers = [...]struct {
	name   string
	number int
}{
	{"HUP", 1}, {"INT", 2}, {"QUIT", 3}, {"ILL", 4}, {"TRAP", 5}, {"ABRT", 6}, {"IOT", 6},
	{"BUS", 7}, {"FPE", 8}, {"KILL", 9}, {"USR1", 10}, {"SEGV", 11}, {"USR2", 12}, {"PIPE", 13},
	{"ALRM", 14}, {"TERM", 15}, {"STKFLT", 16}, {"CHLD", 17}, {"CLD", 17}, {"CONT", 18},
	{"STOP", 19}, {"TSTP", 20}, {"TTIN", 21}, {"TTOU", 22}, {"URG", 23}, {"XCPU", 24}, {"XFSZ", 25},
	{"VTALRM", 26}, {"PROF", 27}, {"WINCH", 28}, {"IO", 29}, {"POLL", 29}, {"PWR", 30}, {"SYS", 31},
}

// The real-time signals as the C library numbers them; the kernel's begin at 32.
const (
	firstRealTime = 34
	last          = 64
)

// Parse returns the number of a signal that is given as TERM, SIGTERM, SIGRTMIN+3 or a number from
// 1 to 64, in upper or lower case, as STOPSIGNAL takes it; ok is false for anything else.
func Parse(s string) (number int, ok bool) {
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	for _, n := range numbers {
		if n.name == name {
			return n.number, true
		}
	}
	base, digits := 0, name
	if rest, ok := strings.CutPrefix(name, "RTMIN"); ok {
		base, digits = firstRealTime, "0"+strings.TrimPrefix(rest, "+")
	} else if rest, ok := strings.CutPrefix(name, "RTMAX"); ok {
		base, digits = last, "-0"+strings.TrimPrefix(rest, "-")
	}
	n, err := strconv.Atoi(digits)
	n += base
	return n, err == nil && n >= 1 && n <= last && (base == 0 || n >= firstRealTime)
}

// CanBeCaught reports whether a process can handle the signal.
func CanBeCaught(number int) bool {
	const kill, stop = 9, 19
	return number >= 1 && number <= last && number != kill && number != stop
}
