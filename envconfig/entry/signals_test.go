//go:build linux

package entry

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// The names are those of the programs in Debian, Alpine and the official images.
func TestGracefulStop(t *testing.T) {
	t.Parallel()
	for program, want := range map[string]syscall.Signal{
		"nginx": syscall.SIGQUIT, "php-fpm": syscall.SIGQUIT, "php-fpm8.2": syscall.SIGQUIT,
		"php-fpm82": syscall.SIGQUIT, "apache2": syscall.SIGWINCH, "httpd": syscall.SIGWINCH,
		"haproxy": syscall.SIGUSR1, "java": 0, "python3.11": 0, "": 0, "2": 0,
	} {
		require.Equal(t, want, gracefulStop(program), program)
	}
}
