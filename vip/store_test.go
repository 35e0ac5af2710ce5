package vip_test

import (
	"testing"

	"github.com/sluice-deploy/sluice/internal/depcheck"
	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/storetest"
)

func TestMemStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(*testing.T) vip.Store { return vip.NewMemStore() })
}

func TestImportsTheStandardLibraryOnly(t *testing.T) {
	t.Parallel()
	depcheck.StdlibOnly(t, "github.com/sluice-deploy/sluice/vip", "net/http")
	depcheck.StdlibOnly(t, "github.com/sluice-deploy/sluice/vip/storetest")
}
