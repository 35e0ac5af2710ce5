//go:build linux

package entry

import (
	"os"
	"strconv"
	"strings"
)

// stat is what /proc/PID/stat says of a process.
type stat struct {
	Process
	parent int
	zombie bool
}

// parseStat reads the beginning of /proc/PID/stat: "12 (name) S 1 …". The name may hold spaces and brackets.
func parseStat(line string) (stat, bool) {
	open, end := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	if open < 1 || end < open {
		return stat{}, false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line[:open]))
	rest := strings.Fields(line[end+1:])
	if err != nil || len(rest) < 2 {
		return stat{}, false
	}
	parent, err := strconv.Atoi(rest[1])
	return stat{Process{pid, line[open+1 : end]}, parent, rest[0] == "Z" || rest[0] == "X"}, err == nil
}

// stats lists the processes that /proc shows; none where there is no /proc.
func stats() []stat {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	var all []stat
	for _, name := range names {
		if name[0] < '0' || name[0] > '9' {
			continue
		}
		line, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue
		}
		if s, ok := parseStat(string(line)); ok {
			all = append(all, s)
		}
	}
	return all
}

func processes() []Process {
	var out []Process
	for _, s := range stats() {
		if !s.zombie {
			out = append(out, s.Process)
		}
	}
	return out
}

// descendantsOf lists the children of a process, theirs, and so on.
func descendantsOf(pid int) []Process {
	children := map[int][]stat{}
	for _, s := range stats() {
		children[s.parent] = append(children[s.parent], s)
	}
	var out []Process
	for queue := []int{pid}; len(queue) > 0; queue = queue[1:] {
		for _, s := range children[queue[0]] {
			queue = append(queue, s.PID)
			if !s.zombie {
				out = append(out, s.Process)
			}
		}
	}
	return out
}
