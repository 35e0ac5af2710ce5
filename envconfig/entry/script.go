//go:build unix

package entry

import (
	"path"
	"slices"
)

// NeedsInit reports whether the command is a shell or a script: as process 1 those ignore SIGTERM unless they trap it, and
// do not pass it on to what they have started.
func (c *Command) NeedsInit() bool {
	return c.Interpreter != "" || slices.Contains([]string{"sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "busybox"}, path.Base(c.Path))
}
