package web

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/sluice-deploy/sluice/examples/server/platform"
)

// ServePage serves the page as it would look with these values, and its assets.
func ServePage(t *testing.T, name string, data any) (url string) {
	t.Helper()
	w := &web{}
	mux := http.NewServeMux()
	w.assets(mux)
	mux.HandleFunc("GET /{$}", func(rw http.ResponseWriter, r *http.Request) {
		w.render(rw, r, http.StatusOK, name, data)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

// Lines are the texts to copy of a task.
func Lines(r platform.Reach) []Line { return lines(r) }
