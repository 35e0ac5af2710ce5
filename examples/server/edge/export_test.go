package edge

import "testing"

// SetModules lets New look for other modules until the end of the test.
func SetModules(t *testing.T, paths ...string) {
	before := modules
	t.Cleanup(func() { modules = before })
	modules = paths
}
