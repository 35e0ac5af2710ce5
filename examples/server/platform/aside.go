package platform

import (
	"maps"
	"sync"

	"github.com/sluice-deploy/sluice/examples/server/instance"
)

// role is why an instance of the generation that serves does not serve itself.
type role int

const (
	starting role = iota + 1 // in the place of another, which serves until this one does
	replaced                 // another has taken its place
)

// aside are the instances that a restart has put aside. It is safe for concurrent use; make it with
// resumeRestarts.
type aside struct {
	mu    sync.Mutex
	roles map[string]role
}

// resumeRestarts decides on restarts that a crash has cut off before they were acknowledged: two
// instances stand for one then. The old one stays as long as it lives.
func resumeRestarts(instances []instance.Instance) *aside {
	a := &aside{roles: map[string]role{}}
	keep := map[string]instance.Instance{}
	for _, i := range instances {
		original, n := parseID(i.ID)
		other, found := keep[original]
		if !found {
			keep[original] = i
			continue
		}
		old, fresh := other, i
		if _, m := parseID(other.ID); m > n {
			old, fresh = i, other
		}
		if !old.Alive() {
			old, fresh = fresh, old
		}
		keep[original] = old
		a.roles[fresh.ID] = replaced
	}
	return a
}

// with returns the instances of list and their roles of the same moment.
func (a *aside) with(list func() []instance.Instance) ([]instance.Instance, map[string]role) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return list(), maps.Clone(a.roles)
}

func (a *aside) put(id string, r role) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.roles[id] = r
}

func (a *aside) remove(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.roles, id)
}

// replace lets fresh serve in the place of old.
func (a *aside) replace(old, fresh string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.roles, fresh)
	a.roles[old] = replaced
}
