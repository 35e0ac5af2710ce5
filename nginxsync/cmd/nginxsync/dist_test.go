//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
)

// systemd takes the unit as it is, without a word about a line that it would pass over.
func TestUnit(t *testing.T) {
	t.Parallel()
	analyze := testbed.NeedProgram(t, "systemd-analyze", "systemd")
	text, err := os.ReadFile("dist/nginxsync-agent.service")
	require.NoError(t, err)
	const program = "ExecStart=/usr/local/bin/nginxsync agent\n"
	require.Contains(t, string(text), program)
	verify := func(text string) string {
		// the program has to be there
		text = strings.Replace(text, program, "ExecStart=/bin/true\n", 1)
		unit := filepath.Join(t.TempDir(), "nginxsync-agent.service")
		require.NoError(t, os.WriteFile(unit, []byte(text), 0o644))
		out, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no",
			"--recursive-errors=yes", unit).CombinedOutput()
		if err != nil {
			return string(out) + err.Error()
		}
		return string(out)
	}
	require.Empty(t, verify(string(text)))
	for line, word := range map[string]string{"Restart=sometimes": "sometimes",
		"ProtectHme=yes": "ProtectHme", "WatchdogSec=1x": "1x"} {
		wrong := strings.Replace(string(text), "[Service]\n", "[Service]\n"+line+"\n", 1)
		require.Contains(t, verify(wrong), word)
	}
}
