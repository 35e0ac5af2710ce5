//go:build tools

// Package tools pins the modules that make tools builds.
package tools

import _ "github.com/opencontainers/runc"
