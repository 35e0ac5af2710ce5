package provisiontest_test

import (
	"testing"

	"github.com/sluice-deploy/sluice/vip/provision"
	"github.com/sluice-deploy/sluice/vip/provision/provisiontest"
)

func ExampleRun() {
	_ = func(t *testing.T) { // the test of a driver
		provisiontest.Run(t, func(t *testing.T) provisiontest.Harness {
			return provisiontest.Harness{Driver: provision.None{}}
		})
	}
}

func TestNone(t *testing.T) {
	t.Parallel()
	provisiontest.Run(t, func(*testing.T) provisiontest.Harness {
		return provisiontest.Harness{Driver: provision.None{}}
	})
}
