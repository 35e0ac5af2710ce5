//go:build linux

package transform_test

import (
	"testing"

	"github.com/sluice-deploy/sluice/internal/testbed/nginx"
)

// The tests whose outcome is up to Nginx run on the Nginx of other releases of Debian too.
func TestOthers(t *testing.T) {
	t.Parallel()
	nginx.Others(t, "TestListensServeAsInProduction", "TestVIPsStandForAddresses",
		"TestCertificatesStandForProductions")
}
