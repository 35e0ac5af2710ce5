package check

import (
	"regexp"
	"strings"
)

// The parsers below read files line by line, for values and not for their meaning to a program:
// there are no syntax errors, and keys are not compared between environments.

// maxLine is the length of a line beyond which it is a program's and is not looked at, as in a
// minified script.
const maxLine = 4096

// parseConf reads NAME=VALUE, NAME: VALUE, NAME VALUE and blocks in braces, as in nginx.conf,
// HOCON, redis.conf and Terraform.
func parseConf(data []byte, k *sink) error {
	var blocks []string
	var p prompts
	return eachLine(data, func(n int, line string) error {
		if value, ok := p.secret(line); ok {
			return k.add(Setting{Key: "password", Kind: String, Line: n, value: value})
		}
		for _, s := range statements(line) {
			if err := parseStatement(s, n, &blocks, k); err != nil {
				return err
			}
		}
		return nil
	})
}

// parseStatement reads the beginning or the end of a block, or one setting in the blocks around it.
func parseStatement(line string, n int, blocks *[]string, k *sink) error {
	if strings.HasPrefix(line, "}") && len(*blocks) > 0 {
		*blocks = (*blocks)[:len(*blocks)-1]
	}
	if strings.HasSuffix(line, "{") && len(*blocks) < maxDepth {
		name := strings.TrimRight(strings.TrimSuffix(line, "{"), " \t=:")
		if i := strings.LastIndexAny(name, "{} \t"); i >= 0 && i+1 < len(name) {
			name = name[i+1:]
		}
		if strings.HasPrefix(line, "upstream ") { // of Nginx: its servers may be next door
			name = "upstream"
		}
		*blocks = append(*blocks, unquote(name))
		return nil
	}
	prefix := ""
	for _, b := range (*blocks)[max(0, len(*blocks)-4):] {
		prefix = Join(prefix, b)
	}
	name, value, ok := assignment(line)
	if !ok {
		return literals(k, prefix, n, line, "")
	}
	if m := namedArgument.FindStringSubmatch(value); m != nil && namesArgument[name] &&
		!strings.EqualFold(unquote(m[1]), "Authorization") { // whose rule reads the whole
		name, value = unquote(m[1]), m[2]
	}
	value = unquote(cutComment(strings.TrimRight(value, ";, \t")))
	s := Setting{Key: Join(prefix, name), Kind: kindOf(value), Line: n, value: value}
	if strings.HasSuffix(line, ";") && nginxVariable.MatchString(value) {
		s.value = "${" + value[1:] + "}" // the form of a reference that the rules know
	}
	if err := k.add(s); err != nil {
		return err
	}
	return literals(k, prefix, n, line, value)
}

var nginxVariable = regexp.MustCompile(`^\$[a-z]+(?:_[a-z0-9_]+)?$`)

// statements parts a line that opens a block and has statements behind the brace, as in
// server { listen 80; return 204; }. Any other line is one statement: in most formats ";" is part
// of a value.
func statements(line string) []string {
	open := strings.Index(line, " {")
	if open < 0 || !strings.Contains(line[open:], ";") {
		return []string{line}
	}
	var parts []string
	from := 0
	end := func(to int) {
		if s := strings.TrimSpace(line[from:to]); s != "" && s != ";" {
			parts = append(parts, s)
		}
		from = to
	}
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '"' || c == '\'':
			if to := closingPlain(line[i:], c); to > 0 {
				i += to
			}
		case c == '{' && i > 0 && line[i-1] == ' ':
			end(i + 1)
		case c == ';' && len(parts) > 0:
			end(i + 1)
		case c == '}' && (i == 0 || strings.IndexByte(" ;}", line[i-1]) >= 0):
			end(i)
			end(i + 1)
		}
	}
	end(len(line))
	return parts
}

// namesArgument are directives whose first argument is the name of a setting: of Nginx and Apache.
var namesArgument = map[string]bool{
	"fastcgi_param": true, "uwsgi_param": true, "scgi_param": true,
	"proxy_set_header": true, "grpc_set_header": true, "SetEnv": true, "RequestHeader": true,
}

// namedArgument matches the arguments of such a directive.
var namedArgument = regexp.MustCompile(
	`^(?:(?:set|add|append|merge)\s+)?("[\w.-]+"|'[\w.-]+'|[\w.-]+)\s+(\S.*)$`)

// parseShell reads assignments of a shell script, and gives each command as a setting without a
// key, since a secret may stand among its arguments.
func parseShell(data []byte, k *sink) error {
	joined := ""
	var p prompts
	return eachLine(data, func(n int, line string) error {
		if value, ok := p.secret(line); ok {
			return k.add(Setting{Key: "password", Kind: String, Line: n, value: value})
		}
		if before, ok := strings.CutSuffix(line, "\\"); ok && len(joined) < maxLine {
			joined += before + " "
			return nil
		}
		line, joined = joined+line, ""
		if m := dockerENV.FindStringSubmatch(line); m != nil {
			value := unquote(m[2])
			return k.add(Setting{Key: m[1], Kind: kindOf(value), Line: n, value: value})
		}
		if m := shellAssignment.FindStringSubmatch(line); m != nil {
			value := unquote(cutComment(strings.TrimRight(m[2], "; \t")))
			return k.add(Setting{Key: m[1], Kind: kindOf(value), Line: n, value: value})
		}
		return k.add(Setting{Kind: String, Line: n, value: line})
	})
}

// dockerENV is the form of ENV in a Dockerfile that has a blank in the place of "=".
var dockerENV = regexp.MustCompile(`^ENV\s+([A-Za-z_]\w*)\s+([^=\s]+)$`)

var shellAssignment = regexp.MustCompile(
	`^(?i:export\s+|set\s+|setx\s+|local\s+|readonly\s+|declare\s+(?:-\w+\s+)*|env\s+|arg\s+|\$env:|\$)?"?([A-Za-z_][\w.]*)\s?=\s?` +
		`("[^"]*"|'[^']*'|[^\s]*)"?\s*;?\s*(?:#.*)?$`)

// parseColons reads lines of fields with colons between them, of which the last is a password:
// PostgreSQL's .pgpass and Postfix's sasl_passwd.
func parseColons(data []byte, k *sink) error {
	return eachLine(data, func(n int, line string) error {
		i := strings.LastIndexByte(line, ':')
		if i < 0 {
			return nil
		}
		return k.add(Setting{Key: "password", Kind: String, Line: n, value: line[i+1:]})
	})
}

// parseCode reads the named string literals of a program: name = "value", name: 'value', "name" =>
// "value", withName("value"), put("name", "value").
func parseCode(data []byte, k *sink) error {
	return eachLine(data, func(n int, line string) error { return literals(k, "", n, line, "") })
}

// eachLine gives lines without the blanks around them, and none that is empty, a comment or longer
// than [maxLine].
func eachLine(data []byte, do func(n int, line string) error) error {
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		if len(line) > maxLine {
			continue
		}
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "<?") {
			line = strings.TrimSpace(strings.TrimPrefix(line[2:], "php"))
		}
		if line == "" || strings.IndexByte("#;*<", line[0]) >= 0 || strings.HasPrefix(line, "//") &&
			!strings.Contains(line, ":_") ||
			strings.HasPrefix(line, "/*") || strings.HasPrefix(line, "--") &&
			!strings.Contains(line, "=") {
			continue
		}
		if err := do(n, line); err != nil {
			return err
		}
	}
	return nil
}

// confName matches the name before "=", ":" or a blank in a line of a configuration file.
var confName = regexp.MustCompile(
	`^(?:export\s+|set\s+\$?|define\s+)?("[\w.$/:@-]+"|'[\w.$/:@-]+'|[\w.$/@-]+(?:\[[\w"'-]*\])?|//[\w./:@-]+:_\w+)(\s*(?:=>|:=|\+=|\?=|=|:)\s*|[ \t]+)(.+)$`)

func assignment(line string) (name, value string, ok bool) {
	m := confName.FindStringSubmatch(line)
	if m == nil || strings.HasPrefix(m[3], "=") || strings.HasPrefix(m[3], "{") {
		return "", "", false
	}
	return unquote(m[1]), m[3], true
}

// cutComment takes away a comment behind a value that has no quotation marks around it.
func cutComment(value string) string {
	if value != "" && (value[0] == '"' || value[0] == '\'') {
		end := closing(value, value[0])
		if end < 0 || strings.HasPrefix(strings.TrimLeft(value[end+1:], " \t"), "{") {
			return value // of BIND: key "name" { … };
		}
		return value[:end+1]
	}
	for _, mark := range []string{" #", "\t#", " //", "\t//"} {
		if i := strings.Index(value, mark); i >= 0 {
			value = value[:i]
		}
	}
	return strings.TrimRight(value, ";, \t")
}

// literals gives the strings in quotation marks that the line gives a name to. but is a value that
// was found already.
func literals(k *sink, prefix string, n int, line, but string) error {
	before := "" // the literal before this one
	from := 0
	for i := 0; i < len(line); i++ {
		c := line[i]
		if c != '"' && c != '\'' && c != '`' {
			continue
		}
		end := closing(line[i:], c)
		if c == '\'' {
			end = closingPlain(line[i:], c)
		}
		if end < 0 {
			break
		}
		value := line[i+1 : i+end]
		// a URL or a command may be the argument of a call, which gives no name to it
		name := named(line[from:i], before)
		if value != but && (name != "" || (strings.Contains(value, "://") ||
			runBefore.MatchString(line[from:i])) && tellsSecret(value)) {
			key := Join(prefix, name)
			if err := k.add(Setting{Key: key, Kind: kindOf(value), Line: n,
				value: value}); err != nil {
				return err
			}
		}
		before, from = value, i+end+1
		i += end
	}
	return nil
}

// closingPlain is [closing] with a backslash that takes the meaning from any quotation mark.
func closingPlain(s string, quote byte) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case quote:
			return i
		}
	}
	return -1
}

var (
	nameBefore = regexp.MustCompile(
		`([A-Za-z_$][\w$.-]*)(?:['"]?\])?\s*(?:=>|:=|\+=|\?\?=|\|\|=|=|:)\s*(?:[a-z]?)$`)
	typeBefore = regexp.MustCompile(`([A-Za-z_]\w*)\s*:\s*[A-Za-z_][\w<>?]*\s*=\s*$`)
	callBefore = regexp.MustCompile(`(?:\b(?:set|with)_?([A-Za-z]\w*)|\.([a-z]\w*))\($`)
	sqlBefore  = regexp.MustCompile(`(?i)\b(?:IDENTIFIED\s+BY|(PASSWORD))\s+$`)
	runBefore  = regexp.MustCompile(
		`\b(?:sh|bat|powershell|pwsh|system|popen|Popen|run|call|check_call|check_output|exec|execSync|shell_exec|passthru|spawn)\s*\(?\s*(?:script:\s*)?$`)
	putBefore  = regexp.MustCompile(`^\s*,\s*$`)
	pairBefore = regexp.MustCompile(`^\s*\]?\s*(?:=>|=|:)\s*$`)
	getter     = regexp.MustCompile(
		`^(?:get|find|load|has|is|read|fetch|delete|remove|require|validate|check|on|log|includes|indexOf|query)`)
)

// named is the name that text gives to the string literal that follows it; last is the literal
// before text.
func named(text, last string) string {
	if last != "" && (putBefore.MatchString(text) || pairBefore.MatchString(text)) {
		if strings.ContainsAny(last, " \t/") {
			return ""
		}
		return last
	}
	if m := typeBefore.FindStringSubmatch(text); m != nil {
		return m[1]
	}
	if m := nameBefore.FindStringSubmatch(text); m != nil {
		return m[1]
	}
	if m := callBefore.FindStringSubmatch(text); m != nil {
		if name := m[1] + m[2]; !getter.MatchString(name) {
			return name
		}
	}
	if sqlBefore.MatchString(text) {
		return "password"
	}
	return ""
}
