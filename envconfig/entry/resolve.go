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

// ErrNotFound (exit code 127): there is no such command. ErrNotExecutable (126): there is, and it
// cannot be run.
var (
	ErrNotFound      = errors.New("command not found")
	ErrNotExecutable = errors.New("command not executable")
)

// defaultPath is where commands are looked up when PATH is not set at all.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Command is a command that was found.
type Command struct {
	// Path of the executable file.
	Path string
	// Args as the command sees them, its own name included.
	Args []string
	// Interpreter is what the first line of a script names, or empty for a binary.
	Interpreter string
}

// Resolve finds the command args[0] as a shell would: a name with a slash is taken as it is, any
// other is looked up in PATH of env. The error matches [ErrNotFound] or [ErrNotExecutable] and says
// why, a missing interpreter included.
func Resolve(args, env []string) (*Command, error) {
	if len(args) == 0 || args[0] == "" {
		return nil, fmt.Errorf("%w: the command is empty", ErrNotFound)
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
	return nil, fmt.Errorf("%s: %w in PATH %s", name, ErrNotFound, search)
}

func check(name string, args []string) (*Command, error) {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return nil, fmt.Errorf("%s: %w", name, ErrNotFound)
	case err != nil:
		return nil, fmt.Errorf("%s: %w: %w", name, ErrNotExecutable, err)
	case info.IsDir():
		return nil, fmt.Errorf("%s: %w: it is a folder", name, ErrNotExecutable)
	}
	const execute = 1
	if err := syscall.Access(name, execute); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w: mode %04o", name, ErrNotExecutable, info.Mode().Perm())
	}
	interpreter, err := readInterpreter(name)
	if err != nil {
		return nil, err
	}
	return &Command{Path: name, Args: args, Interpreter: interpreter}, nil
}

// readInterpreter returns what a "#!" line names. A file that may be run and not read has none that
// can be checked.
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
	case bytes.HasPrefix(head[:n], []byte("\x7fELF")), bytes.IndexByte(head[:n], 0) >= 0: // the kernel may have been told of other formats
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
		return "", fmt.Errorf("%s: %w: its first line ends in a carriage return, so that the interpreter %q is not found: save it with Unix line ends", name, ErrNotExecutable, interpreter)
	case interpreter == "":
		return "", fmt.Errorf("%s: %w: its first line names no interpreter", name, ErrNotExecutable)
	case err != nil:
		return "", fmt.Errorf("%s: %w: interpreter %s: %w", name, ErrNotExecutable, interpreter, err)
	}
	return interpreter, nil
}
