//go:build !unix || solaris || aix

package source

import (
	"fmt"
	"os"

	"github.com/sluice-deploy/sluice/builder"
)

// tryLock fails: this operating system has no flock.
func tryLock(*os.File) (bool, error) {
	return false, fmt.Errorf("this operating system has no flock: %w", builder.ErrUnsupported)
}
