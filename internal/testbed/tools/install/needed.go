package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/sluice-deploy/sluice/internal/testbed/tools"
)

// needs says which tools a call in a test asks for.
var needs = map[string][]string{
	"Consul(":        {"consul"},
	"ConsulCluster(": {"consul", "toxiproxy"},
	"Proxy(":         {"toxiproxy"},
	"Kube(":          {"etcd", "kubernetes"},
	"BuilderImage(":  {"buildkit"},
}

// neededBy are the tools that the tests of the packages ask for.
func neededBy(ctx context.Context, packages []string) ([]tools.Tool, error) {
	out, err := exec.CommandContext(ctx, "go", append([]string{"list", "-json=Dir,ImportPath,TestGoFiles,XTestGoFiles"}, packages...)...).Output()
	if err != nil {
		return nil, fmt.Errorf("go list %v: %w", packages, err)
	}
	wanted := map[string]bool{}
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var p struct {
			Dir, ImportPath           string
			TestGoFiles, XTestGoFiles []string
		}
		if err := d.Decode(&p); err != nil {
			return nil, err
		}
		prefix := "testbed."
		if filepath.Base(p.Dir) == "testbed" {
			prefix = "" // its own tests
		}
		for _, name := range slices.Concat(p.TestGoFiles, p.XTestGoFiles) {
			data, err := os.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				return nil, err
			}
			for call, names := range needs {
				if bytes.Contains(data, []byte(prefix+call)) {
					for _, n := range names {
						wanted[n] = true
					}
				}
			}
		}
	}
	var found []tools.Tool
	for _, t := range tools.All {
		if wanted[t.Name] {
			found = append(found, t)
		}
	}
	return found, nil
}
