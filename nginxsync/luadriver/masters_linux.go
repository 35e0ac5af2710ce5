package luadriver

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync"
)

// An upgrade of Nginx's program (USR2) starts a second master, a child of the first, on the same
// sockets: until the first one's workers end, each new connection comes to one of the two by
// chance, and each has routes of its own. otherWorkers finds the workers of the master that did not
// answer, by the titles that Nginx gives its processes. A master in another PID namespace is not
// seen.
func otherWorkers(master int) []nginxsync.Worker {
	const masterTitle, workerTitle = "nginx: master process", "nginx: worker process"
	if !strings.HasPrefix(title(master), masterTitle) {
		return nil
	}
	var others []int
	if parent := parentOf(master); strings.HasPrefix(title(parent), masterTitle) {
		others = append(others, parent)
	}
	for _, child := range childrenOf(master) {
		if strings.HasPrefix(title(child), masterTitle) {
			others = append(others, child)
		}
	}
	var workers []nginxsync.Worker
	for _, other := range others {
		for _, child := range childrenOf(other) {
			// One that is shutting down takes no new connection. One that was just forked still
			// has the title of its master, and will take connections.
			t := title(child)
			if strings.HasPrefix(t, workerTitle) && !strings.Contains(t, "shutting down") ||
				strings.HasPrefix(t, masterTitle) && child != master {
				workers = append(workers, nginxsync.Worker{Slot: len(workers), PID: child})
			}
		}
	}
	return workers
}

// title is a process's title, or "".
func title(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.TrimRight(strings.ReplaceAll(string(text), "\x00", " "), " ")
}

// parentOf returns 0 where the parent is not known.
func parentOf(pid int) int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	i := strings.LastIndexByte(string(text), ')') // the name before it may have any byte
	if i < 0 {
		return 0
	}
	fields := strings.Fields(string(text[i+1:]))
	if len(fields) < 2 {
		return 0
	}
	parent, _ := strconv.Atoi(fields[1])
	return parent
}

// childrenOf reads the kernel's list, or looks at all processes where the kernel has none.
func childrenOf(pid int) (children []int) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err == nil {
		for _, f := range strings.Fields(string(text)) {
			child, _ := strconv.Atoi(f)
			children = append(children, child)
		}
		return children
	}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		if child, _ := strconv.Atoi(filepath.Base(dir)); parentOf(child) == pid {
			children = append(children, child)
		}
	}
	return children
}
