package builder_test

import (
	"testing"

	"github.com/sluice-deploy/sluice/internal/depcheck"
)

// Rendering a template needs BuildKit's parser, not a registry's client, a cluster's or an HTTP
// stack.
func TestDependencies(t *testing.T) {
	t.Parallel()
	depcheck.Allow(t, "github.com/sluice-deploy/sluice/builder", []string{
		"github.com/moby/buildkit/frontend/dockerfile/", "github.com/moby/buildkit/util/stack",
		"github.com/pkg/errors",
		// by way of util/stack
		"github.com/containerd/typeurl/", "github.com/planetscale/vtprotobuf/",
		"google.golang.org/protobuf/",
	}, "net/http", "os/exec")
}
