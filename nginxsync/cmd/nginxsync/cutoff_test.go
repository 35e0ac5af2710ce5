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
