//go:build linux

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// drainPause is the time between two looks at the connections.
const drainPause = 100 * time.Millisecond

// errInFlight ends drain with 1.
var errInFlight = errors.New("in flight when the time was over")

// drain is for a preStop hook: it gives process 1 the signal on which the service takes no more
// work, if there is one, and waits until no connection to it is left, or for the time given.
func (c *command) drain() error {
	ports, _, err := connections(c.drainPorts)
	if err != nil {
		return err
	}
	if c.drainSignal != 0 {
		if err := syscall.Kill(1, c.drainSignal); err != nil {
			return fmt.Errorf("signal process 1: %w", err)
		}
	}
	begin := time.Now()
	for quiet := 0; ; time.Sleep(drainPause) {
		_, left, err := connections(ports)
		switch {
		case err != nil:
			return err
		case left == 0:
			quiet++
		default:
			quiet = 0
		}
		took := time.Since(begin)
		if quiet == 2 { // one may have been between two
			fmt.Fprintf(c.stderr, "envconfig: drained ports=%v ms=%d\n", ports, took.Milliseconds())
			return nil
		}
		if took > c.drainTime {
			return fmt.Errorf("%d connections to ports %v: %w", left, ports, errInFlight)
		}
	}
}

// connections counts the connections to the ports or, without any, to all listening ports of this
// network namespace, and returns the ports.
func connections(ports []int) (of []int, count int, err error) {
	var all []socket
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		data, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) && name != "/proc/net/tcp" {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, 0, fmt.Errorf("connections: %w", err)
		}
		all = append(all, parseSockets(string(data))...)
	}
	of = slices.Clone(ports)
	if len(ports) == 0 {
		for _, s := range all {
			if s.state == listening {
				of = append(of, s.port)
			}
		}
		slices.Sort(of)
		of = slices.Compact(of)
	}
	for _, s := range all {
		if (s.state == established || s.state == halfClosed) && slices.Contains(of, s.port) {
			count++
		}
	}
	return of, count, nil
}

// The states of a socket that matter; see tcp_states.h of Linux. Half closed is one whose client
// has said that it sends no more, and may wait for an answer.
const (
	established = 1
	halfClosed  = 8
	listening   = 10
)

// socket is a line of /proc/net/tcp.
type socket struct{ port, state int }

// parseSockets reads /proc/net/tcp or tcp6: "0: 0100007F:1F90 00000000:0000 0A …" after a heading.
func parseSockets(text string) (all []socket) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 4 {
			continue
		}
		_, local, _ := strings.Cut(fields[1], ":")
		port, err1 := strconv.ParseUint(local, 16, 16)
		state, err2 := strconv.ParseUint(fields[3], 16, 8)
		if err1 == nil && err2 == nil {
			all = append(all, socket{int(port), int(state)})
		}
	}
	return all
}
