package builder_test

import (
	"testing"

	"github.com/sluice-deploy/sluice/internal/depcheck"
)

// Rendering a template and checking a request need BuildKit's parser, its patterns and the grammar
// of references, not a registry's client, a cluster's or an HTTP stack.
func TestDependencies(t *testing.T) {
	t.Parallel()
	depcheck.Allow(t, "github.com/sluice-deploy/sluice/builder", []string{
		"github.com/moby/buildkit/frontend/dockerfile/", "github.com/moby/buildkit/util/stack",
		"github.com/pkg/errors", "github.com/moby/patternmatcher",
		"github.com/google/go-containerregistry/pkg/name", "github.com/rogpeppe/go-internal/diff",
		// by way of dockerfile/instructions
		"github.com/moby/buildkit/util/suggest", "github.com/agext/levenshtein",
		"github.com/moby/docker-image-spec/specs-go/v1",
		"github.com/opencontainers/image-spec/specs-go", "github.com/opencontainers/go-digest",
		"github.com/docker/go-units", "github.com/tonistiigi/go-csvvalue",
		// by way of util/stack
		"github.com/containerd/typeurl/", "github.com/planetscale/vtprotobuf/",
		"google.golang.org/protobuf/",
	}, "net/http", "os/exec")
}
