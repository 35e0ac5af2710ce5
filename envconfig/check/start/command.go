package start

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/sluice-deploy/sluice/envconfig/check"
)

// maxFile is the size beyond which a file is no script.
const maxFile = 16 << 20

// Entrypoint looks at the command of an image, ENTRYPOINT followed by CMD, for what keeps SIGTERM from the service or cuts
// its requests off. Scripts that the command names are read from root, the image's file system; nil means that there is
// none to look into. dir is the image's working folder.
func Entrypoint(command []string, root fs.FS, dir string) []check.Finding {
	var out []check.Finding
	report := func(line int, source, format string, args ...any) {
		out = append(out, check.Finding{Rule: check.RuleCommand, Source: source, Line: line, Message: fmt.Sprintf(format, args...)})
	}
	service, wrapped, waits := unwrap(command)
	if len(service) == 0 {
		report(0, "ENTRYPOINT", "names no command")
		return out
	}
	shell, script := isShell(service[0]), service[0]
	if shell {
		line, isLine := "", false
		if line, isLine = shellRuns(service[1:]); isLine {
			if !wrapped && !strings.HasPrefix(strings.TrimSpace(line), "exec ") {
				report(0, "ENTRYPOINT", "a shell stays process 1, ignores SIGTERM and does not pass it on: use the form with brackets, exec, or envconfig")
			}
			return out
		}
		script = line
	}
	if root == nil || script == "" {
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

// shellRuns is the script that a shell is given, or the line that it is given with -c.
func shellRuns(args []string) (what string, isLine bool) {
	for len(args) > 0 && len(args[0]) > 1 && strings.IndexByte("-+", args[0][0]) >= 0 {
		option := args[0]
		args = args[1:]
		if option == "--" {
			break
		}
		if strings.HasPrefix(option, "--") {
			continue
		}
		isLine = isLine || option[0] == '-' && strings.Contains(option, "c")
		if strings.HasSuffix(option, "o") && len(args) > 0 {
			args = args[1:] // pipefail and the like
		}
	}
	if len(args) == 0 {
		return "", false
	}
	return args[0], isLine
}

func lintScript(root fs.FS, name, dir string, run, wrapped, waits bool) []check.Finding {
	var out []check.Finding
	report := func(line int, format string, args ...any) {
		out = append(out, check.Finding{Rule: check.RuleCommand, Line: line, Message: fmt.Sprintf(format, args...)})
	}
	if !path.IsAbs(name) {
		if run && !strings.Contains(name, "/") {
			return nil // looked up in PATH
		}
		name = path.Join("/", dir, name)
	}
	name = strings.TrimPrefix(path.Clean(name), "/")
	info, err := fs.Stat(root, name)
	if errors.Is(err, fs.ErrNotExist) {
		report(0, "is not in the image")
	}
	if err != nil {
		return out // a link that begins with a slash leads out of root
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
		} else if _, err := fs.Stat(root, strings.TrimPrefix(fields[0], "/")); errors.Is(err, fs.ErrNotExist) {
			report(1, "the interpreter %s is not in the image", fields[0])
		}
	} else if run {
		report(1, "has no #! line")
	}
	out = append(out, lintLines(text, wrapped, waits)...)
	return out
}

// lintLines reads a shell script line by line; it does not understand the language, and looks for well-known slips.
func lintLines(text string, wrapped, waits bool) []check.Finding {
	var out []check.Finding
	report := func(line int, message string) {
		out = append(out, check.Finding{Rule: check.RuleCommand, Line: line, Message: message})
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
