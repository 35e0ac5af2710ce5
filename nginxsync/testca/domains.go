package testca

import (
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// domains are the registered domains of the names, sorted: city.example for bj.city.example. A name
// that is itself a public suffix, or has one label, stands for itself. Without names it is the
// domain "invalid" (RFC 6761), since no constraint at all would allow every name.
func domains(names []string) []string {
	var list []string
	for _, name := range names {
		name = strings.TrimPrefix(name, "*.")
		domain, err := publicsuffix.EffectiveTLDPlusOne(name)
		if err != nil {
			domain = name
		}
		list = append(list, domain)
	}
	if list == nil {
		return []string{"invalid"}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// within reports whether a name is one of the domains or below it.
func within(name string, domains []string) bool {
	name = strings.TrimPrefix(name, "*.")
	return slices.ContainsFunc(domains, func(domain string) bool {
		return name == domain || strings.HasSuffix(name, "."+domain)
	})
}
