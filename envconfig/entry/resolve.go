//go:build unix

package entry

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// defaultPath is where commands are looked up when PATH is not set at all.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Command is a command that was found.
type Command struct {
	// Path of the executable file.
	Path string
	// Args as the command sees them, its own name included.
	Args []string
	// Interpreter is the program that the first line of a script names, or empty for a binary.
	Interpreter string
}

// validate reports the missing parts of a Command that [Resolve] has not made.
func (c *Command) validate() error {
	if c == nil || c.Path == "" || len(c.Args) == 0 {
		return bad("Command", "a Path and Args with the command's name, as Resolve returns them")
	}
	return nil
}

// Resolve finds the command args[0] as a shell would: a name with a slash is taken as it is, any
// other is looked up in PATH of env. The error matches [ErrNotFound] or [ErrNotExecutable] and says
// why, a missing interpreter included.
func Resolve(args, env []string) (*Command, error) {
	if len(args) == 0 || args[0] == "" {
		return nil, fmt.Errorf("the command is empty: %w", ErrNotFound)
	}
	name := args[0]
	if strings.Contains(name, "/") {
		return check(name, args)
	}
	search, set := Lookup(env, "PATH")
	if !set {
		search = defaultPath
	}
	var found error
	for dir := range strings.SplitSeq(search, ":") {
		if dir == "" {
			dir = "."
		}
		command, err := check(filepath.Join(dir, name), args)
		if err == nil {
			return command, nil
		}
		if found == nil && errors.Is(err, ErrNotExecutable) {
			found = err
		}
	}
	if found != nil {
		return nil, found
	}
	return nil, fmt.Errorf("%s: no such command in PATH %s: %w", name, search, ErrNotFound)
}

func check(name string, args []string) (*Command, error) {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return nil, fmt.Errorf("%s: no such command: %w", name, ErrNotFound)
	case err != nil:
		return nil, fmt.Errorf("%s: %w: %w", name, err, ErrNotExecutable)
	case info.IsDir():
		return nil, fmt.Errorf("%s: it is a directory: %w", name, ErrNotExecutable)
	}
	const execute = 1
	if err := syscall.Access(name, execute); err != nil || !info.Mode().IsRegular() {
		if err != nil && info.Mode().Perm()&0o111 != 0 && isMountedNoExec(name) {
			return nil, noExec(name)
		}
		return nil, fmt.Errorf("%s: mode %04o: %w", name, info.Mode().Perm(), ErrNotExecutable)
	}
	interpreter, err := readInterpreter(name)
	if err != nil {
		return nil, err
	}
	return &Command{Path: name, Args: args, Interpreter: interpreter}, nil
}

// readInterpreter returns the program that a "#!" line names. A file that may be run and not read
// has none that can be checked.
func readInterpreter(name string) (string, error) {
	fd, err := syscall.Open(name, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return "", nil
	}
	defer syscall.Close(fd)
	var head [256]byte // as much as the kernel looks at
	n, err := syscall.Read(fd, head[:])
	switch {
	case err != nil:
		return "", nil
	case bytes.HasPrefix(head[:n], []byte("#!")):
	case bytes.HasPrefix(head[:n], []byte("\x7fELF")), bytes.IndexByte(head[:n], 0) >= 0:
		// the kernel may have been told of other formats
		return "", nil
	default:
		return "", noFormat(name)
	}
	rest, _, _ := strings.Cut(string(head[len("#!"):n]), "\n")
	rest = strings.Trim(rest, " \t")
	interpreter, _, _ := strings.Cut(rest, " ")
	interpreter, _, _ = strings.Cut(interpreter, "\t")
	switch _, err := os.Stat(interpreter); {
	case strings.HasSuffix(interpreter, "\r"):
		return "", fmt.Errorf("%s: its first line ends in a carriage return, so that the "+
			"interpreter %q "+
			"is not found: save it with Unix line ends: %w", name, interpreter, ErrNotExecutable)
	case interpreter == "":
		return "", fmt.Errorf("%s: its first line names no interpreter: %w", name, ErrNotExecutable)
	case err != nil:
		return "", fmt.Errorf("%s: interpreter %s: %w: %w", name, interpreter, err,
			ErrNotExecutable)
	}
	return interpreter, nil
}
