//go:build linux

package main

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/envconfig"
	"github.com/sluice-deploy/sluice/envconfig/entry"
)

func TestExitCodes(t *testing.T) {
	t.Parallel()
	for want, err := range map[int]error{
		0: nil, 1: errDrift, 2: errNoCheck, 42: serviceEnded(42), 64: usageError{fmt.Errorf("x")},
		65: envconfig.ErrInvalid, 66: envconfig.ErrIncomplete,
		73: envconfig.ErrTarget, 74: syscall.ENOSPC, 77: envconfig.ErrPermission,
		78: &envconfig.UnknownEnvironmentError{}, 126: entry.ErrNotExecutable,
		127: entry.ErrNotFound, 143: signalError(15),
	} {
		if err != nil {
			err = fmt.Errorf("somewhere: %w", err)
		}
		require.Equal(t, want, exitCode(err), "%v", err)
	}
}
