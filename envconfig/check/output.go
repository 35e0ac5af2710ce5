package check

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"slices"
)

// WriteText writes one finding a line, and a summary.
func (r Report) WriteText(w io.Writer) error {
	for _, f := range r.Findings {
		if _, err := fmt.Fprintln(w, f); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "check: %d environments, %d files, %d keys: %d findings, %d allowed\n", r.Environments, r.Files, r.Keys, len(r.Findings), r.Allowed)
	return err
}

// WriteJSON writes the report as one JSON object.
func (r Report) WriteJSON(w io.Writer) error {
	if r.Findings == nil {
		r.Findings = []Finding{}
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
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

// WriteJUnit writes the form that build servers read: a case for each rule, or for each of its findings.
func (r Report) WriteJUnit(w io.Writer) error {
	suite := junitSuite{Name: "envconfig"}
	for _, rule := range Rules() {
		if !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Rule == rule }) {
			suite.Cases = append(suite.Cases, junitCase{Name: rule, Class: "envconfig." + rule})
		}
	}
	for _, f := range r.Findings {
		suite.Cases = append(suite.Cases, junitCase{Name: f.String(), Class: "envconfig." + f.Rule, Failure: &junitFailure{Message: f.Message, Text: f.String()}})
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
