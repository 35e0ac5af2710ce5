package main

import "time"

// The tests replace these two: now is the clock of all parts of the agent, and afterStep is called
// after each call of an agent to its Nginx and each write of a state file.
var (
	now       = time.Now
	afterStep = func() {}
)

// stepped is observe with afterStep behind it.
func stepped(observe func(string, time.Duration, error)) func(string, time.Duration, error) {
	return func(op string, took time.Duration, err error) {
		observe(op, took, err)
		afterStep()
	}
}
