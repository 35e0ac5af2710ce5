package builds_test

import (
	"testing"

	"github.com/sluice-deploy/sluice/internal/depcheck"
)

// The records of builds need the dependencies of package builder alone: the stores and engines are
// packages of their own.
func TestDependencies(t *testing.T) {
	t.Parallel()
	depcheck.Allow(t, "github.com/sluice-deploy/sluice/builder/builds", []string{
		"github.com/moby/", "github.com/pkg/errors", "github.com/agext/levenshtein",
		"github.com/google/go-containerregistry/pkg/name", "github.com/opencontainers/",
		"github.com/docker/go-units", "github.com/tonistiigi/go-csvvalue",
		"github.com/containerd/typeurl/", "github.com/planetscale/vtprotobuf/",
		"google.golang.org/protobuf/", "github.com/rogpeppe/go-internal/diff",
	}, "net/http", "os/exec")
}
