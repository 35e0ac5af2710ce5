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

	"github.com/sluice-deploy/sluice/envconfig/entry"
)

// drainPause is the time between two looks at the connections.
const drainPause = 100 * time.Millisecond

// errInFlight ends drain with 1.
var errInFlight = errors.New("in flight when the time was over")

// drain is for a preStop hook: it gives the container's first process the signal on which the
// service takes no more work, if there is one, and waits until no connection to it is left, or for
// the time given.
func (c *command) drain() error {
	ports, _, err := connections(c.drainPorts)
	if err != nil {
		return err
	}
	if c.drainSignal != 0 {
		first := entry.First()
		if err := syscall.Kill(first, c.drainSignal); err != nil {
			return fmt.Errorf("signal process %d: %w", first, err)
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
		if quiet == 2 { // a client may have been between two connections
			fmt.Fprintf(c.stderr, "envconfig: drained ports=%v ms=%d\n", ports, took.Milliseconds())
			return nil
		}
		if took > c.drainTime && left > 0 {
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
		if slices.Contains(inFlight, s.state) && slices.Contains(of, s.port) {
			count++
		}
	}
	return of, count, nil
}

// The states of a socket that matter; see tcp_states.h of Linux.
const (
	established = 1
	finWait1    = 4 // the service has closed it, and the client has not got all of the answer
	halfClosed  = 8 // the client has said that it sends no more, and may wait for an answer
	lastAck     = 9 // both: what was sent after that has not arrived
	listening   = 10
	closing     = 11 // both at once
)

// inFlight are the states of a connection with an answer that is not there yet, or of which the
// kernel still holds a part, which would be lost with the container's network.
var inFlight = []int{established, finWait1, halfClosed, lastAck, closing}

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
