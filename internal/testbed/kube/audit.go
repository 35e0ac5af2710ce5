//go:build linux

package kube

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// The API server writes a line of JSON for each request that has ended.
const (
	auditFile   = "audit.log"
	auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
`
)

// Request is a request that the API server has answered, as its audit log has it.
type Request struct {
	Verb string `json:"verb"` // get, list, watch, create, update, patch, delete, deletecollection
	User struct {
		Username string `json:"username"`
	} `json:"user"`
	// Impersonated is the user in whose name User asked; empty for none.
	Impersonated struct {
		Username string `json:"username"`
	} `json:"impersonatedUser"`
	Object struct {
		APIGroup    string `json:"apiGroup"`
		Resource    string `json:"resource"`
		Subresource string `json:"subresource"`
		Namespace   string `json:"namespace"`
		Name        string `json:"name"`
	} `json:"objectRef"`
	Status struct {
		Code int `json:"code"`
	} `json:"responseStatus"`
}

// Requests are the requests about objects in the test's namespace that were answered until now, in
// the order of their ends. A watch that is open is not among them. The test is skipped with a
// cluster that it did not make, whose audit log it cannot read.
func (k *Cluster) Requests(t testing.TB) []Request {
	t.Helper()
	if k.dir == "" {
		t.Skip("the audit log of the cluster that KUBECONFIG names cannot be read")
	}
	log, err := os.Open(filepath.Join(k.dir, auditFile))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	var found []Request
	lines := bufio.NewReader(log)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil { // at the end, where a line may be in the making
			return found
		}
		var r Request
		if !bytes.Contains(line, []byte(k.Namespace)) {
			continue
		}
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("audit log: %v: %s", err, line)
		}
		if r.Object.Namespace == k.Namespace {
			found = append(found, r)
		}
	}
}
