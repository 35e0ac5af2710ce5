package pod

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// oomKills returns how many processes of this container the kernel has killed for want of memory,
// and -1 where it does not say. Sources: cgroup-v2.rst, memory.events; cgroup-v1/memory.rst,
// memory.oom_control.
func oomKills(root string) int64 {
	for _, name := range []string{"memory.events", "memory/memory.oom_control"} {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
			if n, err := strconv.ParseInt(value, 10, 64); key == "oom_kill" && err == nil {
				return n
			}
		}
	}
	return -1
}
