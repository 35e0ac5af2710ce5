// Package ociref holds the rules that all packages that speak to OCI registries share: which image
// of an index is meant, and which registries are spoken to over plain HTTP.
package ociref

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Platform returns p with its defaults: linux, on the architecture of this process. The variant
// stays empty, which every variant of the architecture matches.
func Platform(p v1.Platform) v1.Platform {
	p.OS = cmp.Or(p.OS, "linux")
	p.Architecture = cmp.Or(p.Architecture, runtime.GOARCH)
	return p
}

// CheckInsecure returns an error for each entry of a list of registries that is not a host or
// host:port. It names the entry as field[index].
func CheckInsecure(field string, registries []string) []error {
	var errs []error
	for i, registry := range registries {
		if _, err := name.NewRegistry(registry, name.StrictValidation); err != nil ||
			registry == "" {
			errs = append(errs, fmt.Errorf("%s[%d]: %q: want host or host:port", field, i,
				registry))
		}
	}
	return errs
}

// NameOptions returns the options with which package name parses a reference: those of a registry
// in the list of insecure ones make it spoken to over plain HTTP. Package name itself does so for
// loopback and private addresses.
func NameOptions(insecure []string, reference string) []name.Option {
	registry, _, _ := strings.Cut(reference, "/")
	if slices.Contains(insecure, registry) {
		return []name.Option{name.Insecure}
	}
	return nil
}
