package check

import (
	"cmp"
	"encoding/json"
	"io"
	"net/url"
	"path"
	"slices"
)

// The types below follow SARIF 2.1.0:
// https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html

type sarifLog struct {
	Schema  string     `json:"$schema"`
	Version string     `json:"version"`
	Runs    []sarifRun `json:"runs"`
}

type sarifRun struct {
	Tool    sarifTool     `json:"tool"`
	Results []sarifResult `json:"results"`
}

type sarifTool struct {
	Driver sarifDriver `json:"driver"`
}

type sarifDriver struct {
	Name           string      `json:"name"`
	InformationURI string      `json:"informationUri"`
	Rules          []sarifRule `json:"rules"`
}

type sarifRule struct {
	ID               string    `json:"id"`
	ShortDescription sarifText `json:"shortDescription"`
	Help             sarifText `json:"help"`
}

type sarifText struct {
	Text string `json:"text"`
}

type sarifResult struct {
	RuleID       string            `json:"ruleId"`
	RuleIndex    int               `json:"ruleIndex"`
	Level        string            `json:"level"`
	Message      sarifText         `json:"message"`
	Locations    []sarifLocation   `json:"locations,omitempty"`
	Fingerprints map[string]string `json:"partialFingerprints"`
}

type sarifLocation struct {
	Physical sarifPhysical  `json:"physicalLocation"`
	Logical  []sarifLogical `json:"logicalLocations,omitempty"`
}

type sarifPhysical struct {
	Artifact sarifArtifact `json:"artifactLocation"`
	Region   *sarifRegion  `json:"region,omitempty"`
}

type sarifArtifact struct {
	URI string `json:"uri"`
}

type sarifRegion struct {
	StartLine int `json:"startLine"`
}

type sarifLogical struct {
	Name string `json:"fullyQualifiedName"`
}

// summaries describes the findings of each rule.
var summaries = map[string]string{
	RuleFile:   "an environment lacks a file that others have",
	RuleSyntax: "a file breaks the rules of its format",
	RuleKey:    "an environment lacks a key that others have", RuleType: "a key's value is of " +
		"another type than elsewhere",
	RulePlaceholder: "an environment that users see has a placeholder",
	RuleLeak:        "a value of one environment occurs in another",
	RuleSecret:      "a secret stands there in plain text", RuleMode: "permission bits are too " +
		"wide, " +
		"or differ",
	RuleSchema:  "a key is not what the configuration says",
	RuleCommand: "the start keeps a signal from the service",
	RuleAllow:   "an entry of the allow-list has expired or accepts nothing",
	RuleSource:  "the source directory has what no start accepts",
}

// WriteSARIF writes the report as a log of SARIF 2.1.0, as code hosts show it beside the lines of a
// change. Paths are relative to the source directory; dir, which may be empty, stands before them.
func (r Report) WriteSARIF(w io.Writer, dir string) error {
	run := sarifRun{Results: []sarifResult{}}
	run.Tool.Driver = sarifDriver{Name: "envconfig-check",
		InformationURI: "https://github.com/sluice-deploy/sluice"}
	for _, rule := range Rules() {
		run.Tool.Driver.Rules = append(run.Tool.Driver.Rules,
			sarifRule{rule, sarifText{summaries[rule]}, sarifText{fixes[rule]}})
	}
	prints := fingerprints(r.Findings)
	for i, f := range r.Findings {
		result := sarifResult{RuleID: f.Rule, RuleIndex: slices.Index(Rules(), f.Rule),
			Level:        "error",
			Message:      sarifText{f.String() + ". " + f.Fix()},
			Fingerprints: map[string]string{"envconfig/v1": prints[i]}}
		if name := cmp.Or(f.Source, f.Path); name != "" {
			location := sarifLocation{Physical: sarifPhysical{Artifact: sarifArtifact{(&url.URL{Path: path.Join(dir, name)}).String()}}}
			if f.Line > 0 {
				location.Physical.Region = &sarifRegion{f.Line}
			}
			if f.Key != "" {
				location.Logical = []sarifLogical{{f.Key}}
			}
			result.Locations = []sarifLocation{location}
		}
		run.Results = append(run.Results, result)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(sarifLog{"https://json.schemastore.org/sarif-2.1.0.json", "2.1.0",
		[]sarifRun{run}})
}
