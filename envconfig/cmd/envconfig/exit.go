//go:build linux

package main

import (
	"errors"
	"flag"

	"github.com/sluice-deploy/sluice/envconfig"
	"github.com/sluice-deploy/sluice/envconfig/entry"
)

// exitCode returns the exit code of the binary. The codes from 64 to 78 are those of sysexits.h.
func exitCode(err error) int {
	var signal signalError
	var ended serviceEnded
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.As(err, &ended):
		return int(ended)
	case errors.As(err, &signal):
		return 128 + int(signal)
	case errors.As(err, &usageError{}):
		return 64
	case errors.Is(err, errDrift), errors.Is(err, errChanges), errors.Is(err, errInFlight),
		errors.Is(err, errUnhealthy):
		return 1
	case errors.Is(err, errNoCheck):
		return 2
	case errors.Is(err, envconfig.ErrUnknownEnvironment):
		return 78
	case errors.Is(err, envconfig.ErrInvalid):
		return 65
	case errors.Is(err, envconfig.ErrIncomplete):
		return 66
	case errors.Is(err, envconfig.ErrPermission):
		return 77
	case errors.Is(err, envconfig.ErrTarget):
		return 73
	case errors.Is(err, entry.ErrNotFound):
		return 127
	case errors.Is(err, entry.ErrNotExecutable):
		return 126
	}
	return 74
}
