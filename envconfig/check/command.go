package check

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Entrypoint looks at the command of an image, ENTRYPOINT followed by CMD, for what keeps SIGTERM from the service or cuts
// its requests off. Scripts that the command names are read from root, the image's file system; nil means that there is
// none to look into. dir is the image's working folder.
func Entrypoint(command []string, root fs.FS, dir string) []Finding {
	var out []Finding
	report := func(line int, source, format string, args ...any) {
		out = append(out, Finding{Rule: RuleCommand, Source: source, Line: line, Message: fmt.Sprintf(format, args...)})
	}
	service, wrapped, waits := unwrap(command)
	if len(service) == 0 {
		report(0, "ENTRYPOINT", "names no command")
		return out
	}
	shell := isShell(service[0])
	if len(service) > 2 && shell && service[1] == "-c" {
		if !wrapped && !strings.HasPrefix(strings.TrimSpace(service[2]), "exec ") {
			report(0, "ENTRYPOINT", "a shell stays process 1, ignores SIGTERM and does not pass it on: use the form with brackets, exec, or envconfig")
		}
		return out
	}
	script := service[0]
	if shell {
		if len(service) < 2 {
			return out
		}
		script = service[1]
	}
	if root == nil {
		return out
	}
	for _, f := range lintScript(root, script, dir, !shell, wrapped, waits) {
		f.Source = script
		out = append(out, f)
	}
	return out
}

func isWrapped(command []string) bool {
	return len(command) > 0 && path.Base(command[0]) == "envconfig"
}

// unwrap finds the service behind envconfig, which stays before a shell or a script unless it was told not to.
func unwrap(command []string) (service []string, wrapped, waits bool) {
	if !isWrapped(command) {
		return command, false, false
	}
	wrapped = true
	for i, arg := range command {
		if arg == "--" {
			return command[i+1:], wrapped, waits
		}
		name, value, ok := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if !ok && i+1 < len(command) {
			value = command[i+1]
		}
		switch name { // the last counts
		case "init":
			wrapped = !ok || value != "false"
		case "on-main-exit":
			waits = value == "wait"
		}
	}
	return nil, wrapped, waits
}

func isShell(name string) bool {
	switch path.Base(name) {
	case "sh", "bash", "dash", "ash", "zsh", "ksh":
		return true
	}
	return false
}

func lintScript(root fs.FS, name, dir string, run, wrapped, waits bool) []Finding {
	var out []Finding
	report := func(line int, format string, args ...any) {
		out = append(out, Finding{Rule: RuleCommand, Line: line, Message: fmt.Sprintf(format, args...)})
	}
	if !path.IsAbs(name) {
		if run && !strings.Contains(name, "/") {
			return nil // looked up in PATH
		}
		name = path.Join("/", dir, name)
	}
	name = strings.TrimPrefix(path.Clean(name), "/")
	info, err := fs.Stat(root, name)
	if err != nil {
		report(0, "is not in the image")
		return out
	}
	if run && info.Mode().Perm()&0o111 == 0 {
		report(0, "is not executable: mode %04o", info.Mode().Perm())
	}
	data, err := fs.ReadFile(root, name)
	if err != nil || len(data) > maxFile || strings.HasPrefix(string(data), "\x7fELF") {
		return out
	}
	text := string(data)
	first, _, _ := strings.Cut(text, "\n")
	if interpreter, ok := strings.CutPrefix(first, "#!"); ok {
		if strings.HasSuffix(first, "\r") {
			report(1, "the first line ends in a carriage return, so that the interpreter is not found")
		} else if fields := strings.Fields(interpreter); len(fields) == 0 {
			report(1, "the first line names no interpreter")
		} else if _, err := fs.Stat(root, strings.TrimPrefix(fields[0], "/")); err != nil {
			report(1, "the interpreter %s is not in the image", fields[0])
		}
	} else if run {
		report(1, "has no #! line")
	}
	out = append(out, lintLines(text, wrapped, waits)...)
	return out
}

// lintLines reads a shell script line by line; it does not understand the language, and looks for well-known slips.
func lintLines(text string, wrapped, waits bool) []Finding {
	var out []Finding
	report := func(line int, message string) {
		out = append(out, Finding{Rule: RuleCommand, Line: line, Message: message})
	}
	last, lastLine, background := "", 0, false
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		last, lastLine = line, n
		switch {
		case strings.Contains(line, "catalina.sh start") || strings.Contains(line, "startup.sh") && strings.Contains(line, "bin/"):
			background = true
			if !waits {
				report(n, "starts Tomcat in the background: use catalina.sh run, or envconfig --on-main-exit=wait")
			}
		case strings.HasSuffix(line, "&") && !strings.HasSuffix(line, "&&"):
			background = true
			if !waits {
				report(n, "puts a process into the background: run the service in the foreground, or use envconfig --on-main-exit=wait")
			}
		case strings.Contains(line, "tail -f /dev/null"), strings.Contains(line, "sleep infinity"):
			report(n, "keeps the container alive whatever becomes of the service")
		}
	}
	if last != "" && !wrapped && !background && !strings.HasPrefix(last, "exec ") && last != "wait" {
		report(lastLine, "the last command has no exec: the shell stays process 1 and SIGTERM does not reach the service")
	}
	return out
}

// stage is what a stage of a Dockerfile says of its command.
type stage struct {
	entrypoint, cmd, flags []string
	dir                    string
	ownCmd                 bool // an ENTRYPOINT takes away only the CMD of the stage before
}

// comments are lines that are left out, also of an instruction that goes on.
var comments = regexp.MustCompile(`(?m)^[ \t]*#.*\n?`)

// Dockerfile returns the command of the last stage, ENTRYPOINT followed by CMD, and its working folder; what a stage does not
// say it has from the stage that it begins with. A command in the form without brackets is one that "sh -c" runs. ENVCONFIG_*
// variables are given as the flags that they stand for. What it cannot read it passes over.
func Dockerfile(text string) (command []string, dir string) {
	s := &stage{dir: "/"}
	stages := map[string]*stage{}
	text = comments.ReplaceAllString(strings.ReplaceAll(text, "\r\n", "\n"), "")
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
		line = strings.TrimSpace(line)
		word := line
		if i := strings.IndexAny(line, " \t"); i > 0 {
			word = line[:i]
		}
		rest := strings.TrimSpace(line[len(word):])
		switch strings.ToUpper(word) {
		case "FROM":
			s = from(rest, stages)
		case "ENV":
			s.flags = append(slices.Clone(s.flags), flags(rest)...)
		case "WORKDIR":
			if path.IsAbs(rest) {
				s.dir = rest
			} else {
				s.dir = path.Join(s.dir, rest)
			}
		case "ENTRYPOINT":
			s.entrypoint = words(rest)
			if !s.ownCmd {
				s.cmd = nil
			}
		case "CMD":
			s.cmd, s.ownCmd = words(rest), true
		}
	}
	command = slices.Concat(s.entrypoint, s.cmd)
	if isWrapped(command) {
		command = slices.Insert(command, 1, s.flags...)
	}
	return command, s.dir
}

// from begins a stage: FROM [--platform=…] image [AS name].
func from(rest string, stages map[string]*stage) *stage {
	fields := slices.DeleteFunc(strings.Fields(rest), func(f string) bool { return strings.HasPrefix(f, "--") })
	s := &stage{dir: "/"}
	if len(fields) > 0 {
		if base := stages[strings.ToLower(fields[0])]; base != nil {
			*s = *base
			s.ownCmd = false
		}
	}
	if len(fields) == 3 && strings.EqualFold(fields[1], "as") {
		stages[strings.ToLower(fields[2])] = s
	}
	return s
}

// flags are those that ENV's NAME=VALUE or NAME VALUE set.
func flags(rest string) (out []string) {
	if name, value, ok := strings.Cut(rest, " "); ok && !strings.Contains(name, "=") {
		rest = name + "=" + strings.TrimSpace(value)
	}
	for _, field := range strings.Fields(rest) {
		name, value, _ := strings.Cut(field, "=")
		if name, ok := strings.CutPrefix(name, "ENVCONFIG_"); ok {
			out = append(out, "--"+strings.ToLower(strings.ReplaceAll(name, "_", "-"))+"="+strings.Trim(value, `"'`))
		}
	}
	return out
}

func words(rest string) []string {
	var list []string
	if json.Unmarshal([]byte(rest), &list) == nil {
		return list
	}
	return []string{"/bin/sh", "-c", rest}
}
