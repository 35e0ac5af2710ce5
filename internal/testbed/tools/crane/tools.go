//go:build tools

// Package tools pins what make tools builds.
package tools

import (
	_ "github.com/google/go-containerregistry/cmd/crane"
)
