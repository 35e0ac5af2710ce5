package sourcetest

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

// Write writes files below dir, with their modes.
func Write(t *testing.T, dir string, files []File) {
	t.Helper()
	for _, f := range files {
		at := filepath.Join(dir, filepath.FromSlash(f.Name))
		err := os.MkdirAll(filepath.Dir(at), 0o755)
		switch {
		case err != nil:
		case f.Link != "":
			err = os.Symlink(f.Link, at)
		default:
			if err = os.WriteFile(at, []byte(f.Content), 0o600); err == nil {
				err = os.Chmod(at, f.Mode)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Hang listens on an address of this machine, host:port, and never answers.
func Hang(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String() // the kernel takes connections, nobody reads from them
}

// Gone is an address at which nothing listens: tcpmux, which no system starts.
const Gone = "127.0.0.1:1"
