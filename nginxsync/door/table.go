package door

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/sluice-deploy/sluice/internal/atomicfile"
)

// table says which task has which port. It is a value: the caller holds a lock, and writes it down.
type table struct {
	Ports []assigned `json:"ports"` // in the order of the ports
}

// assigned is one port that a task has, or had last.
type assigned struct {
	Port  int       `json:"port"`
	Task  string    `json:"task"`
	Since time.Time `json:"since"`
	Ended time.Time `json:"ended,omitzero"` // of the task; zero while it lives
	// Versions are the last versions of the task, for people
	Versions string `json:"versions,omitempty"`
}

// of returns the place of the task's port, or -1.
func (t *table) of(task string) int {
	return slices.IndexFunc(t.Ports, func(a assigned) bool { return a.Task == task })
}

// on returns the task that has the port.
func (t *table) on(port int) (task string, ok bool) {
	at, ok := slices.BinarySearchFunc(t.Ports, port, func(a assigned, port int) int {
		return cmp.Compare(a.Port, port)
	})
	if !ok {
		return "", false
	}
	return t.Ports[at].Task, true
}

// unused returns the first port that no task has or had. The ports in taken are left out. It
// reports false when there is none.
func (t *table) unused(first, last int, taken map[int]bool) (port int, ok bool) {
	for port := first; port <= last; port++ {
		if _, used := t.on(port); !used && !taken[port] {
			return port, true
		}
	}
	return 0, false
}

// rested returns the port whose task ended first, and rest or more ago. The ports in taken are left
// out. It reports false when there is none.
func (t *table) rested(first, last int, now time.Time, rest time.Duration,
	taken map[int]bool) (port int, ok bool) {
	var oldest *assigned
	for i := range t.Ports {
		a := &t.Ports[i]
		if a.Port < first || a.Port > last || taken[a.Port] || a.Ended.IsZero() ||
			now.Sub(a.Ended) < rest {
			continue
		}
		if oldest == nil || a.Ended.Before(oldest.Ended) {
			oldest = a
		}
	}
	if oldest == nil {
		return 0, false
	}
	return oldest.Port, true
}

// with returns the table in which the task has the port.
func (t *table) with(port int, task string, now time.Time) table {
	next := table{slices.Clone(t.Ports)}
	at, found := slices.BinarySearchFunc(next.Ports, port, func(a assigned, port int) int {
		return cmp.Compare(a.Port, port)
	})
	if !found {
		next.Ports = slices.Insert(next.Ports, at, assigned{})
	}
	next.Ports[at] = assigned{Port: port, Task: task, Since: now}
	return next
}

// readTable reads the file; one that is missing is an empty table.
func readTable(name string) (t table, err error) {
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &t)
	}
	if err != nil {
		return t, fmt.Errorf("ports of the tasks in %s: %w: repair the file, or remove it to give "+
			"all tasks new ports", name, err)
	}
	slices.SortFunc(t.Ports, func(a, b assigned) int { return cmp.Compare(a.Port, b.Port) })
	for i, a := range t.Ports {
		if a.Port < 1 || a.Port > 65535 || a.Task == "" || i > 0 && t.Ports[i-1].Port == a.Port {
			return t, fmt.Errorf("ports of the tasks in %s: port %d of task %q: want each port "+
				"once, from 1 to 65535, with a task: repair the file: %w", name, a.Port, a.Task,
				ErrInvalid)
		}
	}
	return t, nil
}

func (t *table) write(name string) error {
	data, err := json.MarshalIndent(t, "", "\t")
	if err != nil {
		return err
	}
	return atomicfile.Write(name, append(data, '\n'), 0o600)
}
