package check

import (
	_ "embed"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Files as their programs' manuals write them, each behind a line "-- name --".
var (
	//go:embed testdata/ordinary.txt
	ordinaryFiles string // in which nothing is wrong
	//go:embed testdata/secrets.txt
	secretFiles string // with one secret each
)

func sections(t *testing.T, text string, do func(t *testing.T, name, text string)) {
	t.Helper()
	parts := strings.Split("\n"+text, "\n-- ")[1:]
	require.Greater(t, len(parts), 30)
	for _, part := range parts {
		name, text, ok := strings.Cut(part, " --\n")
		require.True(t, ok, part)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			do(t, name, text)
		})
	}
}

func TestOrdinaryFilesHaveNoFindings(t *testing.T) {
	t.Parallel()
	sections(t, ordinaryFiles, func(t *testing.T, name, text string) {
		require.Empty(t, found(t, "", map[string]string{"envs/production/etc/" + name: text}))
	})
}

func TestSecretsInOrdinaryFiles(t *testing.T) {
	t.Parallel()
	sections(t, secretFiles, func(t *testing.T, name, text string) {
		require.Contains(t, found(t, "", map[string]string{"envs/production/etc/" + name: text}),
			": secret: production: ")
	})
}
