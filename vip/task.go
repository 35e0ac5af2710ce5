package vip

// task holds the leases, claims and former addresses of one task. It is in index.tasks as long as
// it has any.
type task struct {
	name string
	// its leases, chained by entry.next
	live *entry
	// addresses that it was the last to hold, likewise
	ended *entry
	// of an allocation for it that is in flight or uncertain: its steps are busy or uncertain
	claim *commit
}

func (t *task) tableKey() string { return t.name }

// find returns the task of that name, nil when it has nothing. A call asks for one name several
// times: the map, of which the processor's caches hold little, is asked once.
func (x *index) find(name string) *task {
	switch {
	case x.recent != nil && x.recent.name == name:
		return x.recent
	case x.absent == name:
		return nil
	}
	t := x.tasks.get(name)
	if t == nil {
		x.absent = name
	} else {
		x.recent = t
	}
	return t
}

// task returns the task of that name, which is made when it has nothing yet.
func (x *index) task(name string) *task {
	t := x.find(name)
	if t == nil {
		t = &task{name: name}
		x.tasks.put(t)
		x.recent, x.absent = t, ""
	}
	return t
}

// drop takes out a task that has nothing any more.
func (x *index) drop(t *task) {
	if t != nil && t.live == nil && t.ended == nil && t.claim == nil {
		x.tasks.remove(t.name)
		if x.recent == t {
			x.recent = nil
		}
	}
}

// keepClaims takes over the tasks for which an allocation was in progress or uncertain in the index
// before; nil for none.
func (x *index) keepClaims(before *index) {
	if before == nil {
		return
	}
	for t := range before.tasks.all {
		if t.live, t.ended = nil, nil; t.claim != nil {
			x.tasks.put(t)
		}
	}
	x.recent, x.absent = nil, ""
}

// countClaims counts those allocations for the quotas of the pools that their addresses are in now.
func (x *index) countClaims() {
	for t := range x.tasks.all {
		if t.claim != nil {
			t.claim.reserve(1)
		}
	}
}

// leases are the live ones of a task, chained by entry.next.
func (x *index) leases(task string) *entry {
	if t := x.find(task); t != nil {
		return t.live
	}
	return nil
}

// past are the addresses that a task was the last to hold, chained by entry.next.
func (x *index) past(task string) *entry {
	if t := x.find(task); t != nil {
		return t.ended
	}
	return nil
}

// chain is where the entries of the task in a state are.
func (t *task) chain(s State) **entry {
	if s == Leased {
		return &t.live
	}
	return &t.ended
}

func unchain(at **entry, e *entry) {
	for ; *at != nil; at = &(*at).next {
		if *at == e {
			*at, e.next = e.next, nil
			return
		}
	}
}
