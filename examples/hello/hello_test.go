package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAnswerShowsWhoAnsweredAndWhatWasAsked(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest(http.MethodGet, "http://bj.city.example/new/x?q=1", nil)
	r.Header.Set("X-Env-VIP", "127.58.0.7")
	w := httptest.NewRecorder()
	handler(Answer{Cluster: "hello_web", Version: "v2", Environment: "test", Digest: "sha256:1",
		Greeting: "hi"}).ServeHTTP(w, r)

	var got Answer
	require.NoError(t, json.NewDecoder(w.Body).Decode(&got))
	require.NotEmpty(t, got.Served)
	got.Served = ""
	require.Equal(t, Answer{
		Cluster: "hello_web", Version: "v2", Environment: "test", Digest: "sha256:1",
		Greeting: "hi",
		VIP:      "127.58.0.7", Host: "bj.city.example", URI: "/new/x?q=1",
	}, got)
}

func TestRunRefusesWhatItCannotServe(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good"), filepath.Join(dir, "bad")
	require.NoError(t, os.WriteFile(good, []byte("# comment\n\ngreeting = hi = there\n"), 0o600))
	require.NoError(t, os.WriteFile(bad, []byte("a=1\nbroken\n"), 0o600))
	for _, tc := range []struct{ config, port, want string }{
		{filepath.Join(dir, "none"), "1", "was it activated"},
		{bad, "1", "bad:2: no \"=\""},
		{good, "", "PORT is not set"},
		{good, "70000", "invalid port"},
	} {
		env := map[string]string{"HELLO_CONFIG": tc.config, "PORT": tc.port}
		require.ErrorContains(t, run(t.Context(), func(k string) string { return env[k] }), tc.want)
	}
	values, err := readProperties(good)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"greeting": "hi = there"}, values)
}
