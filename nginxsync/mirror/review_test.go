//go:build linux

package mirror_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync/bundle"
	"github.com/sluice-deploy/sluice/nginxsync/mirror"
	"github.com/sluice-deploy/sluice/nginxsync/route"
)

// The status has the hosts and locations that a tree changes, and Approve holds the tree back.
func TestApproveHoldsTheSwitch(t *testing.T) {
	t.Parallel()
	s := startSynced(t, &bundle.DirSource{}, "location / { return 204; }")
	first := bundleOf(t, site("location / { return 204; }"))
	require.NoError(t, s.mirror.Sync(t.Context(), first))
	require.Nil(t, s.mirror.Status().Routes, "nothing to compare with")

	held := errors.New("ask the owner")
	var asked []*route.Comparison
	answer := held
	s.settings.Approve = func(_ context.Context, c *route.Comparison) error {
		asked = append(asked, c)
		return answer
	}
	var err error
	s.mirror, err = mirror.New(s.settings)
	require.NoError(t, err)
	next := bundleOf(t, site("location / { return 202; }"))
	for _, place := range []string{
		"conf.d/site.conf:8", // of the transformed tree: this process has seen none of production
		"conf.d/site.conf:4",
	} {
		err = s.mirror.Sync(t.Context(), next)
		require.ErrorIs(t, err, mirror.ErrHeld)
		require.ErrorIs(t, err, held)
		require.Equal(t, 204, s.status(t, "/"))
		require.Len(t, asked, 1)
		require.Len(t, asked[0].Changes, 1)
		change := asked[0].Changes[0]
		require.Equal(t, []any{"/", place, 204, place, 202}, []any{change.Location, change.Old.At,
			change.Old.Status, change.New.At, change.New.Status})
		status := s.mirror.Status()
		require.Equal(t, asked[0], status.Routes)
		require.Contains(t, status.LastError, "1 changed, 0 undecided: ask the owner: held")
		require.NotEqual(t, status.Bundle, status.TreeOf)
		asked = nil
		require.NoError(t, s.mirror.Sync(t.Context(), first)) // which it runs on: nobody is asked
		require.Empty(t, asked)
	}
	answer = nil
	require.NoError(t, s.mirror.Sync(t.Context(), next))
	require.Equal(t, 202, s.status(t, "/"))

	// An approval that ends with the sync's context is no refusal.
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("stop"))
	answer = context.Canceled
	err = s.mirror.Sync(ctx, bundleOf(t, site("location / { return 203; }")))
	require.ErrorContains(t, err, "stop")
	require.NotErrorIs(t, err, mirror.ErrHeld)
	require.Equal(t, 202, s.status(t, "/"))
}

// A reload that ends in the code of an init_by_lua says so, with file and line.
func TestReloadShowsAnInitError(t *testing.T) {
	t.Parallel()
	s := startSynced(t, &bundle.DirSource{}, "location / { return 204; }")
	code := filepath.Join(t.TempDir(), "waf.lua")
	require.NoError(t, os.WriteFile(code, []byte("local x = 1\nerror('no rules')\n"), 0o644))
	s.settings.Rules.TrustCode = true
	var err error
	s.mirror, err = mirror.New(s.settings)
	require.NoError(t, err)
	for _, c := range []struct{ code, want, place string }{
		{"init_by_lua_block {\n  local x = nil\n  x.y = 1\n}", "attempt to index local 'x'",
			" (production's conf.d/code.conf:3)"},
		{"\ninit_by_lua 'error(\"none\")';", "none", " (production's conf.d/code.conf:2)"},
		// Lua keeps the last 60 bytes of a long path.
		{"init_by_lua_file " + code + ";", "/waf.lua:2: no rules", ""},
		{"init_by_lua_block { require \"no.such.module\" }", "module 'no.such.module' not found",
			" (production's conf.d/code.conf:1)"},
	} {
		files := site("location / { return 202; }")
		files["conf.d/code.conf"] = c.code
		err := s.mirror.Sync(t.Context(), bundleOf(t, files))
		require.ErrorContains(t, err, "init_by_lua error: ")
		require.ErrorContains(t, err, c.want)
		require.ErrorContains(t, err, c.place)
		require.ErrorContains(t, err, "back on ")
		require.Equal(t, 204, s.status(t, "/"))
	}
}

// An error of nginx -t has production's line, too.
func TestStageShowsProductionsLine(t *testing.T) {
	t.Parallel()
	s := startSynced(t, &bundle.DirSource{}, "location / { return 204; }")
	err := s.mirror.Sync(t.Context(),
		bundleOf(t, site("location / { proxy_pass http://a; }\n\n    no_such_directive;")))
	require.ErrorContains(t, err, "unknown directive \"no_such_directive\" in ")
	require.ErrorContains(t, err, "(production's conf.d/site.conf:6)")
}
