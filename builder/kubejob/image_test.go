package kubejob

import (
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/require"
)

// Layers of the base have no instruction, though the base was built by BuildKit as well.
func TestInstructions(t *testing.T) {
	t.Parallel()
	history := []v1.History{
		{CreatedBy: "COPY base /base # buildkit"},
		{CreatedBy: "ENV A=B", EmptyLayer: true},
		{CreatedBy: "COPY a /a # buildkit"},
	}
	for base, want := range map[int][]string{
		0:  {"COPY base /base", "COPY a /a"},
		1:  {"", "COPY a /a"},
		2:  {"", ""},
		-1: {"", ""},
	} {
		require.Equal(t, want, instructions(history, base), "%d layers of the base", base)
	}
}
