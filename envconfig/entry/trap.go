//go:build linux

package entry

import (
	"path"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/envconfig/internal/signame"
)

// asking is how a script may ask the processes to stop that it has started.
type asking int

const (
	otherwise asking = iota // by a request or a command of the service, or the script is not seen
	bySignal                // by kill
	never
)

// Words by which a script asks a service to stop without a signal: commands that may carry a
// request, parts of the names of such commands, and the words for a stop.
var (
	carriers = []string{".", "source", "eval", "curl", "wget", "nc", "ncat", "socat", "telnet",
		"mysql", "psql", "screen", "tmux", "touch", "mkfifo", "python", "python3", "node", "perl"}
	carrierParts = []string{"ctl", "admin", "-cli", "tool", "client"}
	stopWords    = []string{"stop", "quit", "shutdown", "halt", "drain", "terminate", "stop_app"}
)

// askingOf looks through the words of a script. It takes the names of signals and functions and the
// texts that echo and printf write for none of those.
func askingOf(script string) asking {
	functions := map[string]bool{}
	for before, rest, found := strings.Cut(script, "()"); found; {
		fields := strings.Fields(before)
		if len(fields) > 0 {
			functions[fields[len(fields)-1]] = true
		}
		before, rest, found = strings.Cut(rest, "()")
	}
	how := never
	for _, command := range strings.FieldsFunc(script, func(r rune) bool {
		return strings.ContainsRune("\n;&|(){}'\"`", r)
	}) {
		words := strings.Fields(command)
		if len(words) > 0 && slices.Contains([]string{"echo", "printf", "logger"}, words[0]) {
			continue
		}
		for i, word := range words {
			word = path.Base(word)
			switch {
			case word == "kill", word == "pkill", word == "killall", word == "skill":
				how = bySignal
			case functions[word], isSignalName(word):
			case slices.Contains(carriers, word), slices.Contains(stopWords, word),
				i == 0 && hasPart(word):
				return otherwise
			}
		}
	}
	return how
}

func hasPart(word string) bool {
	return slices.ContainsFunc(carrierParts, func(part string) bool {
		return strings.Contains(word, part)
	})
}

// isSignalName reports whether a word is the name of a signal as scripts write it, in capitals.
func isSignalName(word string) bool {
	_, ok := signame.Parse(strings.TrimPrefix(word, "-"))
	return ok && strings.ToUpper(word) == word
}
