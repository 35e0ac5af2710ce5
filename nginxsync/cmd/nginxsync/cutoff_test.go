//go:build linux

package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
)

// A request that would never end is ended a while after its instance has left the routes.
func TestAgentEndsConnections(t *testing.T) {
	t.Parallel()
	testbed.NeedRoot(t, "the end of connections")
	b := newBed(t)
	asked, gone := make(chan struct{}, 1), make(chan struct{}, 1)
	endless := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-r.Context().Done()
		gone <- struct{}{}
	}))
	t.Cleanup(endless.Close)
	routes := filepath.Join(b.dir, "routes.json")
	write(t, routes, fmt.Sprintf(`{"overlays": {%q: {"hello_web": [{"id": "i", "addr": %q}]}}}`,
		vipA, endless.Listener.Addr()))
	b.configure(b.fileSource())
	text, err := os.ReadFile(b.config())
	require.NoError(t, err)
	write(t, b.config(), strings.Replace(string(text), "    stateFile:",
		"    cutAfter: 10ms\n    stateFile:", 1))
	b.agent.Start()
	b.explains(vipA, endless.Listener.Addr().String())
	ended := make(chan int, 1)
	go func() {
		status, _ := b.answer(vipA, "/")
		ended <- status
	}()
	<-asked
	write(t, routes, fileRoutes(t, "v1", "v2"))
	<-gone
	require.Equal(t, http.StatusBadGateway, <-ended)
	b.answers(vipA, "/", "v2")
}

// An agent that was killed ends the connections to addresses that left before it was.
func TestNextAgentEndsConnections(t *testing.T) {
	t.Parallel()
	testbed.NeedRoot(t, "the end of connections")
	b := newBed(t)
	asked, gone := make(chan struct{}, 1), make(chan struct{}, 1)
	endless := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-r.Context().Done()
		gone <- struct{}{}
	}))
	t.Cleanup(endless.Close)
	addr := endless.Listener.Addr().String()
	routes := filepath.Join(b.dir, "routes.json")
	write(t, routes, fmt.Sprintf(`{"overlays": {%q: {"hello_web": [{"id": "i", "addr": %q}]}}}`,
		vipA, addr))
	configure := func(cutAfter string) {
		b.configure(b.fileSource())
		text, err := os.ReadFile(b.config())
		require.NoError(t, err)
		write(t, b.config(), strings.Replace(string(text), "    stateFile:",
			"    cutAfter: "+cutAfter+"\n    stateFile:", 1))
	}
	configure("1h")
	b.agent.Start()
	b.explains(vipA, addr)
	ended := make(chan int, 1)
	go func() {
		status, _ := b.answer(vipA, "/")
		ended <- status
	}()
	<-asked
	write(t, routes, fileRoutes(t, "v1", "v2"))
	b.explains(vipA, "version v2")
	testbed.Poll(t, "the address is in the file", func() error {
		data, err := os.ReadFile(filepath.Join(b.dir, "routes.gone"))
		if err == nil && !strings.Contains(string(data), addr) {
			err = fmt.Errorf("%s", data)
		}
		return err
	})
	require.Contains(t, b.ask("status"), "gone instances: 0 ended, 1 addresses wait\n")
	b.agent.Kill()
	configure("10ms")
	b.agent.Start()
	<-gone
	require.Equal(t, http.StatusBadGateway, <-ended)
	testbed.Poll(t, "the status counts it", func() error {
		out := b.ask("status")
		if !strings.Contains(out, "connections to gone instances: 1 ended, 0 addresses wait\n") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
}
