// Package tools finds the servers that tests need and that no Debian package brings, or none that
// is new enough: Consul, etcd, Kubernetes, containerd, runc, BuildKit, toxiproxy, and crane, a
// client.
//
// Each is pinned by a module of its own beside this file, whose go.sum is kept; package install
// builds them into the cache directory of the user:
//
//	go run ./internal/testbed/tools/install consul toxiproxy
//
// A build is found again by the tool's version, its go.mod and go.sum and the release of Go. [Path]
// finds a program of it.
//
// To add a tool: make its module, add a line to All.
package tools
