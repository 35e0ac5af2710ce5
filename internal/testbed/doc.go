// Package testbed runs real servers for tests: Nginx, Consul, registries, rsync, Kubernetes, and hosts of their own. Each call
// takes the test, asks for what it needs, starts on free ports, waits until the server answers, shows the end of its log when
// the test has failed, and leaves nothing behind. A test whose server is missing is skipped and says how it is had; with
// SLUICE_TESTBED=require it fails.
//
// What a test binary makes is on record in a folder that the kernel holds locked for it. A lock that is gone says that the
// binary was killed, and the next one that starts undoes what the record tells.
package testbed
