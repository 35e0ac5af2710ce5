package source_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/builder/source"
	"github.com/sluice-deploy/sluice/builder/source/archivesource"
	"github.com/sluice-deploy/sluice/builder/source/sourcetest"
)

// TestSuite holds a Set to the contract of the fetcher that it calls.
func TestSuite(t *testing.T) {
	t.Parallel()
	sourcetest.Run(t, func(t *testing.T) sourcetest.Harness {
		var mu sync.Mutex
		served := map[string][]byte{}
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter,
			q *http.Request) {
			mu.Lock()
			data, ok := served[q.URL.Path]
			mu.Unlock()
			if !ok {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			w.Write(data)
		}))
		t.Cleanup(server.Close)
		files, err := archivesource.New(archivesource.Config{})
		require.NoError(t, err)
		at := func(url string, data []byte) source.Source {
			sum := sha256.Sum256(data)
			return source.Source{Archive: &source.Archive{URL: url,
				SHA256: hex.EncodeToString(sum[:])}}
		}
		return sourcetest.Harness{
			Fetcher: source.Set{Archive: files},
			Serve: func(t *testing.T, files []sourcetest.File) source.Source {
				var b bytes.Buffer
				sourcetest.Tar(t, &b, files)
				mu.Lock()
				defer mu.Unlock()
				path := fmt.Sprint("/", len(served))
				served[path] = b.Bytes()
				return at(server.URL+path, b.Bytes())
			},
			Missing: at(server.URL+"/none", nil),
			Gone:    at("http://"+sourcetest.Gone+"/a", nil),
			Hangs:   at("http://"+sourcetest.Hang(t)+"/a", nil),
		}
	})
}
