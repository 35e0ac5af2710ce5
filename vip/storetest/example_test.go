package storetest_test

import (
	"testing"

	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/storetest"
)

// A store of your own is held to the contract by one test in its package.
func ExampleRun() {
	_ = func(t *testing.T) { // func TestStore(t *testing.T)
		storetest.Run(t, func(*testing.T) vip.Store { return vip.NewMemStore() })
	}
}
