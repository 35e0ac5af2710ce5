package main

import (
	"errors"

	"github.com/sluice-deploy/sluice/envconfig"
	"github.com/sluice-deploy/sluice/envconfig/entry"
)

type usageError struct{ error }

// exitCode is what the binary ends with. The codes below 126 are those of sysexits.h.
func exitCode(err error) int {
	var signal signalError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usageError{}):
		return 64
	case errors.As(err, &signal):
		return 128 + int(signal)
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
