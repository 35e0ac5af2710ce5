package envconfig

// head stands near the beginning of the manifest of an image in which every file has the action
// pointer. It says all that an activation needs then, so that a start costs the same however many
// files there are.
type head struct {
	// Environments by name, with the digest of each.
	Environments map[string]string `json:"environments"`
	// Links are the baked ones.
	Links []string `json:"links"`
	// Missing are the required files that an environment lacks; environments that lack none are
	// left out.
	Missing map[string][]string `json:"missing,omitempty"`
}

// newHead returns nil unless all files have the action pointer.
func newHead(m *Manifest) *head {
	h := &head{Environments: map[string]string{}, Links: m.links(), Missing: map[string][]string{}}
	for name, env := range m.Environments {
		for i := range env.Files {
			if env.Files[i].Action != Pointer {
				return nil
			}
		}
		h.Environments[name] = env.Digest()
		if missing := m.lacks(env); len(missing) > 0 {
			h.Missing[name] = missing
		}
	}
	if len(h.Links) == 0 {
		return nil
	}
	return h
}
