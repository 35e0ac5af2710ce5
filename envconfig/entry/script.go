//go:build unix

package entry

import (
	"path"
	"slices"
)

// inits have to be process 1 themselves, or do the work of [Init] for their services.
var inits = []string{
	"init", "systemd", "tini", "tini-static", "docker-init", "dumb-init", "catatonit", "pid1",
	"s6-svscan", "runit", "runit-init", "runsvdir", "openrc-init", "my_init",
}

// IsInit reports whether the command is an init itself, such as systemd, tini or the /init of
// s6-overlay. It has to be process 1, so it is executed rather than run by [Init].
func (c *Command) IsInit() bool { return slices.Contains(inits, path.Base(c.Path)) }
