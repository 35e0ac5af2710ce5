//go:build linux

// Command envconfig is the entrypoint of an image that carries the configuration of every
// environment: it puts the files of the selected one in place and becomes the service. See
// envconfig --help.
package main

import (
	"os"
	"syscall"
	"time"
	"unsafe"
)

func main() {
	growStack()
	os.Exit(run(os.Args[1:], os.Environ(), os.Stdout, log(syscall.Stderr)))
}

// log is a descriptor that a line is written to if it can be: package os would end the process when
// the pipe has no reader.
type log int

const (
	// logPause is how long a log that is full is waited for, which may be for a slow reader.
	logPause = 100 * time.Millisecond
	// logPiece is the size for which a pipe with any room at all has room: PIPE_BUF of pipe(7).
	logPiece = 4096
)

// Write never fails, and text that cannot be written is lost: the service must not depend on its
// log. To make the descriptor non-blocking would make it so for the service, too.
func (l log) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		if !l.hasRoom() {
			break
		}
		n, err := syscall.Write(int(l), rest[:min(len(rest), logPiece)])
		if err != nil && err != syscall.EINTR {
			break
		}
		rest = rest[max(n, 0):]
	}
	return len(p), nil
}

// hasRoom waits until the descriptor can be written to without waiting, for a moment. Where it
// cannot be asked it is taken to have room.
func (l log) hasRoom() bool {
	const writable, failed = 4, 8 | 16 | 32 // POLLOUT; POLLERR, POLLHUP, POLLNVAL
	poll := struct {
		fd              int32
		events, revents int16
	}{fd: int32(l), events: writable}
	wait := syscall.NsecToTimespec(int64(logPause))
	n, _, errno := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&poll)), 1,
		uintptr(unsafe.Pointer(&wait)), 0, 0, 0)
	return errno != 0 || n > 0 && poll.revents&(writable|failed) != 0
}
