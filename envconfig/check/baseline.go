package check

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// Baseline lists the findings of a tree that existed before the check. They are passed over, so
// that only new findings fail a build. It holds no value, and no value can be derived from it.
type Baseline struct {
	// Version is 1.
	Version int `json:"version"`
	// Findings in the order of the report.
	Findings []BaselineEntry `json:"findings"`
}

// BaselineEntry is one finding. The fields beside Fingerprint are for people.
type BaselineEntry struct {
	// Fingerprint identifies the finding independently of its line.
	Fingerprint string `json:"fingerprint"`
	Rule        string `json:"rule"`
	Environment string `json:"environment,omitempty"`
	Path        string `json:"path,omitempty"`
	Key         string `json:"key,omitempty"`
}

// fingerprints returns the fingerprints of a report's findings, in its order. A fingerprint covers
// the rule, environment, path, source, key and message, and the number of equal findings before it:
// a line may move, and values are not looked at.
func fingerprints(findings []Finding) []string {
	out := make([]string, len(findings))
	times := map[string]int{}
	for i, f := range findings {
		what := strings.Join([]string{f.Rule, f.Environment, f.Path, f.Source, f.Key,
			inLine.ReplaceAllString(f.Message, "line")}, "\x00")
		times[what]++
		sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d", what, times[what]))
		out[i] = hex.EncodeToString(sum[:12])
	}
	return out
}

// inLine is a line that a message names.
var inLine = regexp.MustCompile(`line \d+`)

// NewBaseline accepts all findings of a report but those about the allow-list itself.
func NewBaseline(r Report) Baseline {
	b := Baseline{Version: 1, Findings: []BaselineEntry{}}
	for i, fingerprint := range fingerprints(r.Findings) {
		if f := r.Findings[i]; f.Rule != RuleAllow {
			b.Findings = append(b.Findings, BaselineEntry{fingerprint, f.Rule, f.Environment,
				f.Path, f.Key})
		}
	}
	return b
}

// ParseBaseline reads the output of [Baseline.Write]. The error matches [ErrInvalid].
func ParseBaseline(data []byte) (Baseline, error) {
	var b Baseline
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&b); err != nil {
		return Baseline{}, fmt.Errorf("baseline: %w: %w", err, ErrInvalid)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Baseline{}, fmt.Errorf("baseline: data after the end: %w", ErrInvalid)
	}
	if b.Version != 1 {
		return Baseline{}, fmt.Errorf("baseline: version %d: want 1: %w", b.Version, ErrInvalid)
	}
	for i, e := range b.Findings {
		if raw, err := hex.DecodeString(e.Fingerprint); err != nil || len(raw) != 12 {
			return Baseline{}, fmt.Errorf("baseline: findings[%d]: want a fingerprint of 24 "+
				"hexadecimal digits: %w", i, ErrInvalid)
		}
	}
	return b, nil
}

// Write writes the baseline as JSON, the same bytes for the same findings.
func (b Baseline) Write(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(b)
}

// Apply takes the findings of the baseline out of a report. Baselined counts them, Mended counts
// the entries of the baseline that are no longer found.
func (b Baseline) Apply(r Report) Report {
	known := map[string]bool{}
	for _, e := range b.Findings {
		known[e.Fingerprint] = true
	}
	prints := fingerprints(r.Findings)
	kept := make([]Finding, 0, len(r.Findings))
	for i, f := range r.Findings {
		if known[prints[i]] {
			r.Baselined++
		} else {
			kept = append(kept, f)
		}
	}
	r.Findings, r.Mended = slices.Clip(kept), len(known)-r.Baselined
	return r
}
