package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"
)

// limits bound how long a client may keep a connection without finishing the request that it has
// begun. Answers have none: streams last.
type limits struct {
	header time.Duration // for the header of a request
	idle   time.Duration // between two requests
	body   time.Duration // for the body, and one second more for each rate bytes of it
	rate   int64         // bytes a second
}

var defaultLimits = limits{header: 10 * time.Second, idle: 2 * time.Minute, body: 30 * time.Second,
	rate: 4 << 10}

// serve serves until ctx is done, lets requests end and returns nil.
func serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	return defaultLimits.serve(ctx, listener, handler)
}

func (l limits) serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{
		Handler: l.hurry(handler), ReadHeaderTimeout: l.header, IdleTimeout: l.idle,
		MaxHeaderBytes: 64 << 10,
		// streams end with the server
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if server.Shutdown(grace) != nil {
			_ = server.Close()
		}
	})
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// hurry ends a request whose body comes slower than the limits say, also while the handler does not
// read it.
func (l limits) hurry(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Body == nil || r.Body == http.NoBody {
			next.ServeHTTP(rw, r)
			return
		}
		body := &slowBody{ReadCloser: r.Body, limits: l, connection: http.NewResponseController(rw),
			start: time.Now()}
		body.extend()
		r.Body = body
		next.ServeHTTP(rw, r)
	})
}

// slowBody moves the connection's deadline on with each byte that arrives.
type slowBody struct {
	io.ReadCloser
	limits     limits
	connection *http.ResponseController
	start      time.Time
	read       int64
}

// Read reads, and takes the deadline away at the end: the handler may then take as long as it
// likes.
func (b *slowBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	if errors.Is(err, io.EOF) {
		_ = b.connection.SetReadDeadline(time.Time{}) // a connection without deadlines needs none
		return n, err
	}
	b.extend()
	return n, err
}

func (b *slowBody) extend() {
	most := b.limits.body + time.Duration(float64(b.read)/float64(b.limits.rate)*float64(
		time.Second))
	_ = b.connection.SetReadDeadline(b.start.Add(most)) // as above
}
