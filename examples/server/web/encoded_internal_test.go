package web

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEncoded(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("the same again ", 100)
	e := encode("text/plain; charset=utf-8", []byte(text))
	ask := func(header ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", "/", nil)
		for n := 0; n < len(header); n += 2 {
			r.Header.Set(header[n], header[n+1])
		}
		rw := httptest.NewRecorder()
		e.serve(rw, r)
		require.Contains(t, rw.Header().Get("Vary"), "Accept-Encoding")
		return rw
	}
	require.Equal(t, text, ask().Body.String())
	for accept, compressed := range map[string]bool{
		"gzip": true, "br, GZIP;q=0.5": true, "*": true, "*;q=0, gzip": true, "gzip;q=0": false,
		"gzip; q=0.0, *": false, "br": false, "": false,
		"gzip;q=high": false, "x-gzip": true,
	} {
		answer := ask("Accept-Encoding", accept)
		if !compressed {
			require.Equal(t, text, answer.Body.String(), accept)
			continue
		}
		require.Equal(t, "gzip", answer.Header().Get("Content-Encoding"), accept)
		require.Less(t, answer.Body.Len(), len(text)/10, accept)
		z, err := gzip.NewReader(bytes.NewReader(answer.Body.Bytes()))
		require.NoError(t, err)
		plain, err := io.ReadAll(z)
		require.NoError(t, err)
		require.Equal(t, text, string(plain), accept)
	}
	tag := ask().Header().Get("ETag")
	again := ask("If-None-Match", tag, "Accept-Encoding", "gzip")
	require.Equal(t, http.StatusNotModified, again.Code)
	require.Empty(t, again.Body.String())
	require.NotEqual(t, tag, encode("text/plain", []byte(text+".")).tag)
}
