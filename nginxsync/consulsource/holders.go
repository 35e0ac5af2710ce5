package consulsource

import "github.com/hashicorp/consul/api"

// holder is the service that has a registration, and the index of Consul's last change of it.
type holder struct {
	service *service
	index   uint64
}

// hold notes the registrations that an answer names. A registration that had another service's name
// before has been renamed: Consul 1.22 does not wake the query of the name before, so that one is
// asked again at once.
func (s *Source) hold(v *service, entries []*api.ServiceEntry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	there := make(map[registration]bool, len(entries))
	for _, e := range entries {
		if e == nil || e.Service == nil {
			continue
		}
		r, now := registrationOf(e), holder{v, e.Service.ModifyIndex}
		there[r] = true
		before, had := s.holders[r]
		switch {
		case !had || before.service == v:
		case before.index < now.index:
			before.service.askAgain()
		default:
			continue // this answer is the older one
		}
		s.holders[r] = now
	}
	for r := range v.given {
		if !there[r] && s.holders[r].service == v {
			delete(s.holders, r)
		}
	}
}

// askAgain has the service asked without waiting. The caller holds Source.mu.
func (v *service) askAgain() {
	v.stale = true
	if v.wake != nil {
		v.wake()
	}
}

// waiting notes how to end the query of a service that waits, nil for none. It reports whether the
// service is to be asked without waiting.
func (s *Source) waiting(v *service, wake func()) (stale bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	stale, v.wake = v.stale, wake
	if wake != nil {
		v.stale = false
	}
	return stale
}
