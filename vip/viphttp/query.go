package viphttp

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/vip"
)

// selectors are the parameters that choose leases.
var selectors = []string{
	"addr", "task", "team", "cluster", "version", "instance", "instanceAddr", "pool", "label", "state",
}

// repeated are the parameters that may be given more than once; optional are the parameters that
// may be empty.
var repeated, optional = []string{"label", "state"}, []string{"reason"}

// params are the parameters of a URL, each known, and given once unless it is one of repeated.
type params url.Values

func (p params) get(name string) string { return url.Values(p).Get(name) }

// parameters reads the parameters of a URL. A slip of the pen is an error: it must not list all, or
// end another lease than was meant.
func parameters(r *http.Request, names []string) (params, error) {
	all, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("query: %w: %w", err, vip.ErrInvalid)
	}
	var errs []error
	bad := func(name, what string) {
		errs = append(errs, fmt.Errorf("parameter %.64q: %s: %w", name, what, vip.ErrInvalid))
	}
	for name, values := range all {
		switch {
		case len(names) == 0:
			bad(name, "want none")
		case !slices.Contains(names, name):
			bad(name, "want one of "+strings.Join(names, ", "))
		case len(values) > 1 && !slices.Contains(repeated, name):
			bad(name, "given more than once")
		case slices.Contains(values, "") && !slices.Contains(optional, name):
			bad(name, "has no value")
		}
	}
	return params(all), errors.Join(errs...)
}

// query makes a query of the selectors.
func (p params) query() (vip.Query, error) {
	var q vip.Query
	for name, values := range p {
		value, err := values[0], error(nil)
		switch name {
		case "addr":
			q.Addr, err = netip.ParseAddr(value)
		case "instanceAddr":
			q.InstanceAddr, err = netip.ParseAddrPort(value)
		case "label":
			q.Selector, err = labels(values)
		case "state":
			for _, v := range values {
				var s vip.State
				err = errors.Join(err, s.UnmarshalText([]byte(v)))
				q.States = append(q.States, s)
			}
		case "pool":
			q.Pool = value
		case "task":
			q.Task = value
		case "team":
			q.Team = value
		case "cluster":
			q.Cluster = value
		case "version":
			q.Version = value
		case "instance":
			q.Instance = value
		}
		if err != nil {
			return q, fmt.Errorf("parameter %s: %w: %w", name, err, vip.ErrInvalid)
		}
	}
	return q, nil
}

// labels of a pool, each KEY=VALUE.
func labels(values []string) (map[string]string, error) {
	all := map[string]string{}
	for _, v := range values {
		key, value, ok := strings.Cut(v, "=")
		if _, twice := all[key]; !ok || twice {
			return nil, fmt.Errorf("%.64q: want KEY=VALUE, each key once", v)
		}
		all[key] = value
	}
	return all, nil
}
