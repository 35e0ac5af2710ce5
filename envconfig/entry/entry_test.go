//go:build unix

package entry

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestResolve(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		name = filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, os.WriteFile(name, []byte(content), mode))
		return name
	}
	write("a/tool", "\x7fELF", 0o644)
	tool := write("b/tool", "\x7fELF", 0o755)
	script := write("b/script", "#! /bin/sh -e\n", 0o755)
	crlf := write("b/crlf", "#!/bin/sh\r\n", 0o755)
	lost := write("b/lost", "#!/no/such\n", 0o755)
	empty := write("b/empty", "#!\n", 0o755)
	bare := write("b/bare", "echo hello\n", 0o755)
	nothing := write("b/nothing", "", 0o755)
	other := write("b/other", "\x00asm", 0o755)
	env := []string{"PATH=" + dir + "/a:" + dir + "/b"}

	c, err := Resolve([]string{"tool", "x"}, env)
	require.NoError(t, err, "one that cannot be run is passed over, as a shell does")
	require.Equal(t, &Command{Path: tool, Args: []string{"tool", "x"}}, c)
	require.False(t, c.IsInit())
	c, err = Resolve([]string{script}, nil)
	require.NoError(t, err)
	require.Equal(t, "/bin/sh", c.Interpreter)
	require.False(t, c.IsInit())
	_, err = Resolve([]string{other}, nil)
	require.NoError(t, err, "the kernel may have been told of the format")

	for _, bad := range []struct {
		name, path, want string
		is               error
	}{
		{"absent", env[0], "no such command in PATH", ErrNotFound},
		{"tool", "PATH=" + dir + "/a", "mode 0644", ErrNotExecutable},
		{dir, "", "it is a directory", ErrNotExecutable},
		{dir + "/absent", "", "no such command: not found", ErrNotFound},
		{dir + "/b/tool/x", "", "no such command: not found", ErrNotFound},
		{crlf, "", "carriage return", ErrNotExecutable},
		{lost, "", "interpreter /no/such", ErrNotExecutable},
		{empty, "", "names no interpreter", ErrNotExecutable},
		{bare, "", "nor a script with a #! line", ErrNotExecutable},
		{nothing, "", "nor a script with a #! line", ErrNotExecutable},
		{"", "", "the command is empty", ErrNotFound},
	} {
		_, err := Resolve([]string{bad.name}, []string{bad.path})
		require.ErrorIs(t, err, bad.is, bad.name)
		require.ErrorContains(t, err, bad.want)
	}
	_, err = Resolve(nil, nil)
	require.ErrorIs(t, err, ErrNotFound)
}

func ExampleResolve() {
	_, err := Resolve([]string{"no-such-service"}, []string{"PATH=/usr/bin:/bin"})
	fmt.Println(err)
	// Output: no-such-service: no such command in PATH /usr/bin:/bin: not found
}
