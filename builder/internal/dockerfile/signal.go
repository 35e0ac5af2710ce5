package dockerfile

import (
	"slices"
	"strconv"
	"strings"
)

// signals are the names of Linux's signals, without "SIG" (signal(7), on x86 and ARM).
var signals = strings.Fields("ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL " +
	"PROF PWR QUIT SEGV STKFLT STOP SYS TERM TRAP TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU " +
	"XFSZ RTMIN RTMAX")

// KnownSignal reports whether STOPSIGNAL may have the value: a number of at least 1, or a name in
// either case, with "SIG" or without, of a real-time signal also RTMIN+1 to RTMIN+15 and RTMAX-1 to
// RTMAX-14.
func KnownSignal(s string) bool {
	if n, err := strconv.Atoi(s); err == nil {
		return n != 0
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if n, ok := strings.CutPrefix(name, "RTMIN+"); ok {
		return between(n, 15)
	}
	if n, ok := strings.CutPrefix(name, "RTMAX-"); ok {
		return between(n, 14)
	}
	return slices.Contains(signals, name)
}

// between reports whether the text is a number from 1 to most, without a zero before it.
func between(text string, most int) bool {
	n, err := strconv.Atoi(text)
	return err == nil && n >= 1 && n <= most && strconv.Itoa(n) == text
}
