package depcheck

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestStdlibOnlyAcceptsALightPackage(t *testing.T) {
	t.Parallel()
	StdlibOnly(t, "github.com/sluice-deploy/sluice/internal/atomicfile", "net/http")
}

func TestChainNamesTheWayIn(t *testing.T) {
	t.Parallel()
	pkgs := map[string]pkg{"a": {Imports: []string{"b", "c"}}, "b": {Imports: []string{"d"}},
		"c": {Imports: []string{"x"}}, "d": {Imports: []string{"x"}}}
	require.Equal(t, "a > c > x", chain(pkgs, "a", "x"))
}

func TestListReportsAnUnknownPackage(t *testing.T) {
	t.Parallel()
	_, err := list("github.com/sluice-deploy/sluice/no-such-package")
	require.ErrorContains(t, err, "no-such-package")
}
