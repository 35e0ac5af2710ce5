package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
)

func reachServer(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") != "Bearer secret":
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"detail":"a token is required"}`)
		case r.URL.Path == "/api/v1/tasks/login-fix/reach":
			_, _ = io.WriteString(w, `{"door":"127.0.0.1:21000","host":"bj.city.example",`+
				`"pin":"a+b="}`)
		case r.URL.Path == "/api/v1/tasks/none/reach":
			_, _ = io.WriteString(w, `{"why":"the range is full"}`)
		default:
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"detail":"no such task"}`)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestBrowse(t *testing.T) {
	t.Parallel()
	server := reachServer(t)
	token := func(string) string { return "secret" }
	for _, c := range []struct {
		getenv func(string) string
		args   string
		want   string
	}{
		{token, "", "want TASK [URL]"},
		{token, "a b c", "want TASK [URL]"},
		{token, "../x", "task"},
		{token, "other", "no such task"},
		{token, "none", "the range is full"},
		{token, "-browser=lynx login-fix", "want chromium or firefox"},
		{env, "login-fix", "a token is required"},
		{token, "-server=http://127.0.0.1:1 login-fix", "refused"},
	} {
		args := append([]string{"browse", "-server", server}, strings.Fields(c.args)...)
		require.ErrorContains(t, run(t.Context(), args, c.getenv, io.Discard), c.want, c.args)
	}
	for name, want := range map[string]string{
		"chromium": "--proxy-server=http://127.0.0.1:21000 '--proxy-bypass-list=<-loopback>' " +
			"--no-first-run --no-default-browser-check --ignore-certificate-errors-spki-list=a+b=",
		"firefox": "-profile /p/login-fix/firefox http://x.example/",
	} {
		var out bytes.Buffer
		require.NoError(t, browse(t.Context(), []string{"-server", server, "-n", "-browser", name,
			"-profiles", "/p", "login-fix", "http://x.example/"}, token, &out, io.Discard))
		require.Contains(t, out.String(), want)
	}
}

func TestFirefoxSettings(t *testing.T) {
	t.Parallel()
	settings := firefoxSettings("[2001:db8::1]:21000")
	require.Contains(t, settings, `user_pref("network.proxy.http", "2001:db8::1");`)
	require.Contains(t, settings, `user_pref("network.proxy.ssl_port", 21000);`)
}

// The browser starts with a profile of the task, and its settings are in place.
func TestBrowseStartsTheBrowser(t *testing.T) {
	dir := t.TempDir()
	started := filepath.Join(dir, "started")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "firefox"),
		[]byte("#!/bin/sh\nprintf '%s ' \"$@\" > "+started+".new\nmv "+started+".new "+started+
			"\n"),
		0o700))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	require.NoError(t, run(t.Context(), []string{"browse", "-server", reachServer(t), "-browser",
		"firefox", "-profiles", dir, "login-fix"},
		func(string) string { return "secret" }, io.Discard))
	profile := filepath.Join(dir, "login-fix", "firefox")
	testbed.Poll(t, "the browser", func() error {
		_, err := os.Stat(started)
		return err
	})
	args, err := os.ReadFile(started)
	require.NoError(t, err)
	require.Equal(t, "-no-remote -profile "+profile+" http://bj.city.example/ ", string(args))
	settings, err := os.ReadFile(filepath.Join(profile, "user.js"))
	require.NoError(t, err)
	require.Contains(t, string(settings), `user_pref("network.proxy.http", "127.0.0.1");`)
	_, err = exec.LookPath("firefox")
	require.NoError(t, err)
}
