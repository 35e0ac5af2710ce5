package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"time"
)

// notify sends the state of the service to systemd, by the datagram of sd_notify(3) to the socket
// in NOTIFY_SOCKET. Without systemd it does nothing.
func notify(state string) error {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	defer conn.Close()
	_, err = conn.Write([]byte(state))
	return err
}

// watchdogPeriod is how often systemd wants to hear that the service works: half of WATCHDOG_USEC,
// as sd_watchdog_enabled(3) recommends. 0 means not at all.
func watchdogPeriod() time.Duration {
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	pid := os.Getenv("WATCHDOG_PID")
	if err != nil || usec <= 0 || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	return time.Duration(usec) * time.Microsecond / 2
}
