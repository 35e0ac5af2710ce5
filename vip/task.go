package vip

// chained is the first of the addresses that one task has, or was the last to have. The others
// follow by entry.next. The name of the task is in their records only.
type chained struct{ *entry }

func (c chained) tableKey() string { return c.owner() }

// owner is the task of the last tenure; "" when no task had the address.
func (e *entry) owner() string {
	switch {
	case e.lease != nil:
		return e.lease.Owner.Task
	case e.recordText != nil:
		return taskIn(e.record())
	}
	return ""
}

// of returns the addresses that a task has or was the last to have, chained by entry.next. It has
// the ones that are Leased.
func (x *index) of(task string) *entry { return x.owned.get(task).entry }

// chain adds e to the addresses of its owner, if it has one and is not among them.
func (x *index) chain(e *entry) {
	if e.chained || e.rev == 0 || e.owner() == "" {
		return
	}
	e.next, e.chained = x.owned.put(chained{e}).entry, true
	if c := x.crowdOf(e); c != nil {
		c.add(e)
	}
}

// unchain is the inverse of chain, before e has another owner.
func (x *index) unchain(e *entry) {
	if !e.chained {
		return
	}
	first, c := x.owned.slot(e.owner()), x.crowdOf(e)
	switch {
	case first.entry != e && c != nil:
		c.at[e].before.next = e.next
	case first.entry != e:
		before := first.entry
		for before.next != e {
			before = before.next
		}
		before.next = e.next
	case e.next == nil:
		x.owned.remove(e.owner())
	default:
		first.entry = e.next
	}
	if c != nil {
		c.remove(e)
		if len(c.at) < crowdSize/2 {
			delete(x.crowds, e.owner())
		}
	}
	e.next, e.chained = nil, false
}
