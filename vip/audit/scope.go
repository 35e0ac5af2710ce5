package audit

import (
	"errors"
	"fmt"
	"slices"

	"github.com/sluice-deploy/sluice/vip"
)

// scope are the names of the pools that are looked at; none stands for all.
type scope []string

func (s scope) has(pool string) bool { return len(s) == 0 || slices.Contains(s, pool) }

// problems names the pools that leases does not have: a name that is misspelt would leave all
// leases out of scope, and every comparison without a finding.
func (s scope) problems(config string, leases *vip.Allocator) error {
	var errs []error
	if slices.Contains(s, "") {
		errs = append(errs, fmt.Errorf("%s.Pools: a name is empty: %w", config, vip.ErrInvalid))
	}
	if leases == nil || len(s) == 0 {
		return errors.Join(errs...)
	}
	var known []string
	for _, p := range leases.Stats() {
		known = append(known, p.Pool)
	}
	for _, name := range s {
		if name != "" && !slices.Contains(known, name) {
			errs = append(errs, fmt.Errorf("%s.Pools: pool %.64q: the allocator has %q: %w", config,
				name, known, vip.ErrInvalid))
		}
	}
	return errors.Join(errs...)
}

// leases returns the leases in scope. A lease of a pair is in scope when either of the two is, for
// they end together.
func (s scope) leases(all []vip.Lease) []vip.Lease {
	if len(s) == 0 {
		return all
	}
	in := make(map[string]bool, len(all)) // by id
	for _, l := range all {
		in[l.ID] = s.has(l.Pool)
	}
	return slices.DeleteFunc(slices.Clone(all), func(l vip.Lease) bool {
		return !in[l.ID] && !(l.Peer != "" && in[l.Peer])
	})
}
