package promote_test

import (
	"testing"

	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/ownerstest"
)

func TestOwnersSuite(t *testing.T) {
	t.Parallel()
	ownerstest.Run(t, func(*testing.T) ownerstest.Harness {
		o := promote.NewMemOwners()
		return ownerstest.Harness{Owners: o, Other: o}
	})
}
