//go:build tools

// Package tools pins the programs that make tools builds.
package tools

import (
	_ "github.com/google/go-containerregistry/cmd/crane"
)
