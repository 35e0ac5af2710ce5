//go:build linux

package main

// growStack makes room at once for all that a start calls, while there is hardly anything on the
// stack that has to be moved, rather than step by step. It has a large frame and does nothing.
func growStack()
