//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sluice-deploy/sluice/envconfig/entry"
	"github.com/sluice-deploy/sluice/internal/names"
)

// errUnhealthy ends probe with 1, the code that HEALTHCHECK knows.
var errUnhealthy = errors.New("unhealthy")

const (
	// probeTime bounds the connection and each part of the answer that is waited for.
	probeTime = 10 * time.Second
	// probeAnswer is how much of an answer is read, so that a small one is not cut off: some
	// services log that.
	probeAnswer = 64 << 10
)

// probeTarget is the service that probe asks.
type probeTarget struct {
	address syscall.Sockaddr
	family  int
	host    string // as the URL has it, with the port
	path    string // of the request, "" for a TCP connection alone
}

// probe is for HEALTHCHECK: it asks the service in its own container for a page. Package net would
// add a third to the size of the binary.
func (c *command) probe() error {
	if len(c.args) != 1 {
		return usageError{errors.New("probe takes one URL, such as http://127.0.0.1:8080/health " +
			"or tcp://127.0.0.1:9000")}
	}
	t, err := parseProbe(c.args[0], c.env)
	if err != nil {
		return usageError{err}
	}
	if err := t.ask(); err != nil {
		return fmt.Errorf("probe %s: %w: %w", names.Quote(c.args[0]), err, errUnhealthy)
	}
	return nil
}

// parseProbe reads a URL, in which $NAME and ${NAME} stand for variables: HEALTHCHECK fills in
// none.
func parseProbe(url string, env []string) (probeTarget, error) {
	var missing string
	text := os.Expand(url, func(name string) string {
		value, ok := entry.Lookup(env, name)
		if !ok {
			missing = name
		}
		return value
	})
	if missing != "" {
		return probeTarget{}, fmt.Errorf("probe %s: the variable %s is not set", names.Quote(url),
			names.Quote(missing))
	}
	scheme, rest, ok := strings.Cut(text, "://")
	authority, path, _ := strings.Cut(rest, "/")
	colon := strings.LastIndexByte(authority, ':')
	if !ok || colon < 0 || scheme != "http" && (scheme != "tcp" || path != "") ||
		strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return probeTarget{}, fmt.Errorf("probe %s: want http://127.0.0.1:PORT/PATH or "+
			"tcp://127.0.0.1:PORT", names.Quote(text))
	}
	port, err := strconv.ParseUint(authority[colon+1:], 10, 16)
	if err != nil || port == 0 {
		return probeTarget{}, fmt.Errorf("probe %s: want a port from 1 to 65535",
			names.Quote(text))
	}
	t := probeTarget{host: authority}
	if scheme == "http" {
		t.path = "/" + path
	}
	switch authority[:colon] {
	case "127.0.0.1", "localhost":
		t.family = syscall.AF_INET
		t.address = &syscall.SockaddrInet4{Port: int(port), Addr: [4]byte{127, 0, 0, 1}}
	case "[::1]":
		t.family = syscall.AF_INET6
		t.address = &syscall.SockaddrInet6{Port: int(port), Addr: [16]byte{15: 1}}
	default:
		return probeTarget{}, fmt.Errorf("probe %s: the host must be 127.0.0.1, localhost or "+
			"[::1]: the service is in the same container", names.Quote(text))
	}
	return t, nil
}

// ask connects, and for a path reads the answer to a request for it.
func (t probeTarget) ask() error {
	fd, err := syscall.Socket(t.family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer syscall.Close(fd)
	limit := syscall.NsecToTimeval(int64(probeTime))
	for _, option := range []int{syscall.SO_SNDTIMEO, syscall.SO_RCVTIMEO} {
		err := syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, option, &limit)
		if err != nil {
			return fmt.Errorf("limit the time: %w", err)
		}
	}
	if err := retried(func() error { return syscall.Connect(fd, t.address) }); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if t.path == "" {
		return nil
	}
	request := []byte("GET " + t.path + " HTTP/1.1\r\nHost: " + t.host +
		"\r\nUser-Agent: envconfig-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n")
	for len(request) > 0 {
		var n int
		err := retried(func() (err error) {
			n, err = syscall.Write(fd, request)
			return err
		})
		if err != nil {
			return fmt.Errorf("request: %w", err)
		}
		request = request[n:]
	}
	answer, err := readAnswer(fd)
	status, ok := statusOf(answer)
	switch {
	case ok && status < 500:
		return nil // of an answer that was cut, too
	case ok:
		return fmt.Errorf("the service answers with status %d", status)
	case err != nil:
		return fmt.Errorf("answer: %w", err)
	}
	return fmt.Errorf("the answer %s is not HTTP", names.Quote(answer))
}

// readAnswer reads until the service closes the connection, probeAnswer at most.
func readAnswer(fd int) (string, error) {
	var answer []byte
	buf := make([]byte, 4<<10)
	for len(answer) < probeAnswer {
		var n int
		err := retried(func() (err error) {
			n, err = syscall.Read(fd, buf)
			return err
		})
		if err != nil || n <= 0 {
			return string(answer), err
		}
		answer = append(answer, buf[:n]...)
	}
	return string(answer), nil
}

// statusOf returns the status of an answer: "HTTP/1.1 200 OK".
func statusOf(answer string) (int, bool) {
	line, _, _ := strings.Cut(answer, "\n")
	version, rest, _ := strings.Cut(strings.TrimRight(line, "\r"), " ")
	code, _, _ := strings.Cut(rest, " ")
	status, err := strconv.Atoi(code)
	return status, err == nil && strings.HasPrefix(version, "HTTP/") && len(code) == 3 &&
		status >= 100
}

// retried calls a system call until a signal does not interrupt it.
func retried(call func() error) error {
	for {
		if err := call(); err != syscall.EINTR {
			return err
		}
	}
}
