package check

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"slices"
)

// WriteText writes one finding a line, the advice for each rule that has findings, and a summary.
func (r Report) WriteText(w io.Writer) error {
	for _, f := range r.Findings {
		if _, err := fmt.Fprintln(w, f); err != nil {
			return err
		}
	}
	for _, rule := range Rules() {
		if slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Rule == rule }) {
			if _, err := fmt.Fprintf(w, "fix %s: %s\n", rule, fixes[rule]); err != nil {
				return err
			}
		}
	}
	known := ""
	if r.Baselined+r.Mended > 0 {
		known = fmt.Sprintf(", %d in the baseline, %d of it mended", r.Baselined, r.Mended)
	}
	_, err := fmt.Fprintf(w, "check: %d environments, %d files, %d keys: %d findings, %d "+
		"allowed%s\n",
		r.Environments, r.Files, r.Keys, len(r.Findings), r.Allowed, known)
	return err
}

// WriteJSON writes the report as one JSON object, each finding with its advice and its fingerprint,
// which stays the same when lines move.
func (r Report) WriteJSON(w io.Writer) error {
	type finding struct {
		Finding
		Fix         string `json:"fix"`
		Fingerprint string `json:"fingerprint"`
	}
	out := struct {
		Findings []finding `json:"findings"`
		Report
	}{Findings: []finding{}, Report: r}
	prints := fingerprints(r.Findings)
	for i, f := range r.Findings {
		out.Findings = append(out.Findings, finding{f, f.Fix(), prints[i]})
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(out)
}

type junitSuites struct {
	XMLName xml.Name     `xml:"testsuites"`
	Suites  []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Name    string        `xml:"name,attr"`
	Class   string        `xml:"classname,attr"`
	Failure *junitFailure `xml:"failure,omitempty"`
}

type junitFailure struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// WriteJUnit writes the form that build servers read: a case for each rule, or for each of its
// findings.
func (r Report) WriteJUnit(w io.Writer) error {
	suite := junitSuite{Name: "envconfig"}
	for _, rule := range Rules() {
		if !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Rule == rule }) {
			suite.Cases = append(suite.Cases, junitCase{Name: rule, Class: "envconfig." + rule})
		}
	}
	for _, f := range r.Findings {
		suite.Cases = append(suite.Cases, junitCase{Name: f.String(), Class: "envconfig." + f.Rule,
			Failure: &junitFailure{Message: f.Message, Text: f.String() + "\n" + f.Fix()}})
		suite.Failures++
	}
	suite.Tests = len(suite.Cases)
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(junitSuites{Suites: []junitSuite{suite}}); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}
