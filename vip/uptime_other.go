//go:build !linux

package vip

import "time"

// machineUptime is nil: only Linux names the starts of a machine.
func machineUptime() func() (string, time.Duration) { return nil }
