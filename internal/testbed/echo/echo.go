//go:build linux

// Package echo is the smallest server and client that show whether bytes pass between two places.
package echo

import (
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

// Serve sends back the bytes of each connection, until the listener is closed.
func Serve(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			_, _ = io.Copy(conn, conn)
		}()
	}
}

// Try sends a text and returns nil once it has come back whole.
func Try(conn net.Conn, text string) error {
	if _, err := conn.Write([]byte(text)); err != nil {
		return err
	}
	back := make([]byte, len(text))
	if _, err := io.ReadFull(conn, back); err != nil {
		return err
	}
	if string(back) != text {
		return fmt.Errorf("got %q, want %q", back, text)
	}
	return nil
}

// Silent fails the test when a byte or the end of the connection arrives within a tenth of a
// second.
func Silent(t testing.TB, conn net.Conn) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	_, err := conn.Read(make([]byte, 1))
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatalf("the connection is not silent: %v", err)
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
}
