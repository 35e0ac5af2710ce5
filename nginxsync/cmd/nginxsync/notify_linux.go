package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// reloading is the state of a service that reads its configuration again. systemd compares the time
// with its own clock, which is CLOCK_MONOTONIC.
func reloading() string {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) != nil {
		return "RELOADING=1"
	}
	return fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/1000)
}
