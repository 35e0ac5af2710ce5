// Package rules reads the rules of clusters and teams from a document: whose approvals an
// environment needs, how long and under how many requests a digest soaks in the one before, and
// when nothing changes. A platform with thousands of clusters has its rules as data, which are
// reviewed as such, and takes a new document without a restart.
//
// The document is YAML, or JSON, which is YAML, too:
//
//	version: 1
//	rules:
//	  - name: everybody
//	    approvals:
//	      production: {count: 1, notBuilder: true}
//	    soak: {production: 1h}
//	    freezes:
//	      - {reason: weekend, environments: [production], days: [friday], start: "16:00",
//	         length: 64h, location: Europe/Berlin}
//	  - name: payments
//	    clusters: [billing, pay_*]
//	    approvals:
//	      production: {count: 2, approvers: [bob, carol, dave], notDeployer: true, within: 8h}
//	    traffic: {production: 10000}
//
// A rule is for the clusters that it names, where "*" at the end stands for any rest, and for all
// clusters when it names none. Of the rules for one cluster a later one replaces an earlier one,
// environment by environment; a count, a time or a number of 0 lifts it. Freezes add up. A key that
// the package does not know, one that comes twice, and an environment that the pipeline does not
// have are errors; all errors of a document are reported at once, each with its line.
//
// The embedder, in this order:
//
//  1. calls Open with the path of the document and the pipeline;
//  2. gives Set.Gates to promote.Config.Gates, behind OrderGate and ConfigGate;
//  3. calls Set.Run, or Set.Reload on a signal.
//
// An approval is bound to the rules in force when it was given: it does not count after a reload
// that changes the approvals, the soak or the traffic of its cluster and environment.
//
// It knows no permissions and counts no requests: see [promote.Traffic].
package rules
