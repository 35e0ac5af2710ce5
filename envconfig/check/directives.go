package check

import (
	"regexp"
	"slices"
	"strings"
)

// directives are lines of configuration files whose name says nothing of the secret among their
// arguments. The groups are the possible secrets.
var directives = map[string]*regexp.Regexp{
	// snmpd.conf(5), snmptrapd.conf(5), snmp.conf(5) of Net-SNMP
	"createuser": regexp.MustCompile(
		`^(?:-e\s+\S+\s+)?\S+\s+(?:MD5|SHA[\w-]*)\s+(?:-[ml]\s+)?("[^"]*"|\S+)` +
			`(?:\s+(?:DES|AES[\w-]*)(?:\s+(?:-[ml]\s+)?("[^"]*"|\S+))?)?`),
	"rocommunity":   community,
	"rwcommunity":   community,
	"rocommunity6":  community,
	"rwcommunity6":  community,
	"trapcommunity": community,
	"com2sec":       regexp.MustCompile(`^(?:-Cn\s+\S+\s+)?\S+\s+\S+\s+("[^"]*"|\S+)`),
	"com2sec6":      regexp.MustCompile(`^(?:-Cn\s+\S+\s+)?\S+\s+\S+\s+("[^"]*"|\S+)`),
	"trapsink":      sinkOfTraps,
	"trap2sink":     sinkOfTraps,
	"informsink":    sinkOfTraps,
	"trapsess":      snmpArguments,
	// mod_sql of ProFTPD: database, user, password
	"sqlconnectinfo": regexp.MustCompile(`^\S+\s+\S+\s+("[^"]*"|\S+)`),
	// Postfix: postconf(5), DATABASE_README
	"smtp_sasl_password_maps": regexp.MustCompile(`\bstatic:[^:\s{}]+:(\S+)`),
	// Cisco IOS
	"enable":      regexp.MustCompile(`^(?:secret|password)\s+(?:level\s+\d+\s+)?(?:\d\s+)?(\S+)$`),
	"username":    regexp.MustCompile(`^\S+\s+(?:\S+\s+)*?(?:secret|password)\s+(?:\d\s+)?(\S+)$`),
	"snmp-server": regexp.MustCompile(`^community\s+(\S+)`),
	// fetchmail(1)
	"poll":   fetchmailUser,
	"server": fetchmailUser,
	"user":   regexp.MustCompile(`^["']?[^\s"']+["']?\s+.*\bpass(?:word)?\s+("[^"]*"|'[^']*'|\S+)`),
}

var (
	community     = regexp.MustCompile(`^("[^"]*"|\S+)`)
	sinkOfTraps   = regexp.MustCompile(`^\S+\s+("[^"]*"|\S+)`)
	snmpArguments = regexp.MustCompile(`(?:^|\s)-[cAX]\s*("[^"]*"|\S+)(?:.*\s-[AX]\s*("[^"]*"|\S+))?`)
	fetchmailUser = regexp.MustCompile(
		`\b(?:user|username)\s+\S+\s+.*\bpass(?:word)?\s+("[^"]*"|'[^']*'|\S+)`)
)

// knownToAll are community strings that devices come with.
var knownToAll = []string{"public", "default"}

// tellsByDirective reports whether a line of a configuration file is a directive with a secret
// among its arguments.
func tellsByDirective(s *Setting) bool {
	form := directives[strings.ToLower(s.Key[strings.LastIndexByte(s.Key, '.')+1:])]
	if form == nil {
		return false
	}
	for i, value := range form.FindStringSubmatch(s.value) {
		value = unquote(strings.TrimRight(value, ";,"))
		if i > 0 && isArgumentValue(value) && !slices.Contains(knownToAll, value) {
			return true
		}
	}
	return false
}

// prompts follows the lines of an expect(1) script.
type prompts struct {
	asked bool // the last line waits for a prompt for a password
}

var (
	promptLine = regexp.MustCompile(
		`(?i)(?:^|[\s;{])(?:exp_)?expect\s.*(?:assword|assphrase|asscode)[^{;]*$`)
	sendLine = regexp.MustCompile(
		`^(?:exp_)?send\s+(?:-(?:-|s|h|raw)\s+)*\\?"((?:[^"\\]|\\.)*?)(?:\\+[rn])*\\?"`)
	// promptAndSend is both in one line, also as a case of expect { … }.
	promptAndSend = regexp.MustCompile(
		`(?i)(?:assword|assphrase|asscode)[^;{]*[;{]\s*(?:exp_)?send\s+(?:-(?:-|s|h|raw)\s+)*\\?"((?:[^"\\]|\\.)*?)(?:\\+[rn])*\\?"`)
)

// secret returns the text that a line sends to a prompt for a password.
func (p *prompts) secret(line string) (value string, ok bool) {
	asked := p.asked
	p.asked = strings.Contains(line, "expect") && promptLine.MatchString(line)
	if !strings.Contains(line, "send") {
		return "", false
	}
	m := promptAndSend.FindStringSubmatch(line)
	if m == nil && asked {
		m = sendLine.FindStringSubmatch(line)
	}
	if m == nil || !isArgumentValue(m[1]) {
		return "", false
	}
	return m[1], true
}

// parseCHAP reads the files of pppd(8) with a client, a server and their secret in each line.
func parseCHAP(data []byte, k *sink) error {
	return eachLine(data, func(n int, line string) error {
		fields := word.FindAllString(line, 3)
		if len(fields) < 3 {
			return nil
		}
		value := unquote(fields[2])
		if value == "*" || value == "-" { // any, none
			return nil
		}
		return k.add(Setting{Key: "password", Kind: String, Line: n, value: value})
	})
}

// word is a word, or several in quotation marks.
var word = regexp.MustCompile(`"[^"]*"|'[^']*'|\S+`)
