//go:build linux

package rsyncsource_test

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/source"
	"github.com/sluice-deploy/sluice/builder/source/rsyncsource"
	"github.com/sluice-deploy/sluice/builder/source/sourcetest"
	"github.com/sluice-deploy/sluice/internal/testbed/rsync"
)

func at(t *testing.T, addr string) source.Source {
	t.Helper()
	host, text, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	port, err := strconv.Atoi(text)
	require.NoError(t, err)
	return source.Source{Rsync: &source.Rsync{Host: host, Port: port, Module: "code"}}
}

func fetcher(t *testing.T, cfg rsyncsource.Config) *rsyncsource.Fetcher {
	t.Helper()
	f, err := rsyncsource.New(cfg)
	require.NoError(t, err)
	return f
}

func TestSuite(t *testing.T) {
	t.Parallel()
	sourcetest.Run(t, func(t *testing.T) sourcetest.Harness {
		var mu sync.Mutex
		served := map[string]string{} // the directory of each address
		serve := func(t *testing.T, files []sourcetest.File,
			start func(dir string) *rsync.Server) source.Source {
			dir := t.TempDir()
			sourcetest.Write(t, dir, files)
			addr := start(dir).Addr
			mu.Lock()
			defer mu.Unlock()
			served[addr] = dir
			return at(t, addr)
		}
		nowhere := t.TempDir()
		missing := at(t, rsync.Start(t, nowhere).Addr)
		missing.Rsync.Path = "not/there"
		return sourcetest.Harness{
			Fetcher: fetcher(t, rsyncsource.Config{}),
			Serve: func(t *testing.T, files []sourcetest.File) source.Source {
				return serve(t, files, func(dir string) *rsync.Server {
					return rsync.Start(t, dir)
				})
			},
			Change: func(t *testing.T, s source.Source, files []sourcetest.File) {
				mu.Lock()
				defer mu.Unlock()
				dir := served[net.JoinHostPort(s.Rsync.Host, strconv.Itoa(s.Rsync.Port))]
				for _, f := range files {
					require.NoError(t, os.RemoveAll(filepath.Join(dir, f.Name)))
				}
				sourcetest.Write(t, dir, files)
			},
			Secured: func(t *testing.T, files []sourcetest.File, user,
				value string) source.Source {
				s := serve(t, files, func(dir string) *rsync.Server {
					return rsync.StartSecured(t, dir, user, value)
				})
				s.Rsync.User, s.Rsync.Secret = user, "password"
				return s
			},
			Missing: missing,
			Gone:    at(t, sourcetest.Gone),
			Hangs:   at(t, sourcetest.Hang(t)),
		}
	})
}

func request(t *testing.T, s source.Source) source.Request {
	t.Helper()
	return source.Request{Source: s, Dir: t.TempDir(), Scratch: t.TempDir()}
}

// TestCommandLine runs rsync through a script that writes down its arguments and its environment.
func TestCommandLine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a"), []byte("code"), 0o644))
	server := rsync.StartSecured(t, dir, "ann", "pa55-w0rd")
	told := filepath.Join(t.TempDir(), "told")
	script := filepath.Join(t.TempDir(), "rsync")
	require.NoError(t, os.WriteFile(script, []byte("#!/bin/sh\necho \"$@\" >>"+told+
		"\nenv >>"+told+"\nexec rsync \"$@\"\n"), 0o755))
	s := at(t, server.Addr)
	s.Rsync.User, s.Rsync.Secret = "ann", "password"
	r := request(t, s)
	r.Secrets = map[string]string{"password": "pa55-w0rd"}
	_, err := fetcher(t, rsyncsource.Config{Program: script}).Fetch(t.Context(), r)
	require.NoError(t, err)
	text, err := os.ReadFile(told)
	require.NoError(t, err)
	require.Contains(t, string(text), "ann@")
	require.NotContains(t, string(text), "pa55-w0rd")
}

// TestRefused: a pipe is refused before a file is transferred.
func TestRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644))
	r := request(t, at(t, rsync.Start(t, dir).Addr))
	_, err := fetcher(t, rsyncsource.Config{}).Fetch(t.Context(), r)
	require.Equal(t, builder.ReasonSourceRefused, builder.FailureOf(err).Reason, "%v", err)
	require.ErrorContains(t, err, "pipe")
}

// TestWrittenMeanwhile fetches a directory that another process goes on writing to.
func TestWrittenMeanwhile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := filepath.Join(dir, "a")
	require.NoError(t, os.WriteFile(name, nil, 0o644))
	server := rsync.Start(t, dir)
	count := filepath.Join(t.TempDir(), "count")
	script := filepath.Join(t.TempDir(), "rsync")
	grow := func(times string) {
		require.NoError(t, os.WriteFile(script, []byte(`#!/bin/sh
echo >>`+count+`
[ $(wc -l <`+count+`) -gt `+times+` ] || echo more >>`+name+`
exec rsync "$@"
`), 0o755))
	}
	f := fetcher(t, rsyncsource.Config{Program: script})
	grow("1000")
	var log strings.Builder
	r := request(t, at(t, server.Addr))
	r.Log = &log
	_, err := f.Fetch(t.Context(), r)
	require.Equal(t, builder.ReasonSourceChanged, builder.FailureOf(err).Reason, "%v", err)
	require.Contains(t, log.String(), "fetch it again")
	left, err := os.ReadDir(r.Dir)
	require.NoError(t, err)
	require.Empty(t, left)

	require.NoError(t, os.Remove(count))
	grow("2") // the first list and the first transfer
	id, err := f.Fetch(t.Context(), r)
	require.NoError(t, err)
	got, err := os.ReadFile(filepath.Join(r.Dir, "a"))
	require.NoError(t, err)
	want, err := os.ReadFile(name)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))
	require.EqualValues(t, len(want), id.Bytes)
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for _, idle := range []time.Duration{-time.Second, time.Millisecond} {
		_, err := rsyncsource.New(rsyncsource.Config{Idle: idle})
		require.ErrorIs(t, err, builder.ErrInvalid)
		require.ErrorContains(t, err, "Config.Idle")
	}
}
