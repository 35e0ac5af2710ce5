//go:build linux

package main

import (
	"net/netip"
	"testing"

	"github.com/sluice-deploy/sluice/internal/soak"
)

// Consul, the link to it, the agent's limits and its clock fail, one after the other, with clients
// that check every answer: no route is lost, no answer is of a wrong version, and the next version
// gets there afterwards. The shortened test has no lost service and no link that is dead as a
// whole.
func TestFaultsOfConsul(t *testing.T) {
	t.Parallel()
	f := newFaults(t)
	f.deploys("nothing")

	leader := f.cluster.Leader(t)
	asked := f.cluster.Others(leader)[0]
	f.link.Aim(asked.Addr)
	leader.Process.Kill()
	f.deploys("the leader is killed")
	f.cluster.Start(t)

	mark := len(f.agent.Log())
	asked.Process.Pause()
	f.logs(mark, "no answer in ")
	f.unharmed("the server that the agent asks hangs")
	asked.Process.Resume()
	f.deploys("the server that the agent asks hangs")

	snapshot := f.cluster.Leader(t).Snapshot(t)
	for i := range 20 {
		f.put("other", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(i+1)), "v0")
	}
	mark = len(f.agent.Log())
	for _, m := range f.cluster.Members {
		m.Process.Kill()
	}
	f.logs(mark, "EOF", "connection reset", "broken pipe") // of the link
	f.unharmed("all servers are killed")
	f.cluster.Start(t)
	f.cluster.Leader(t).Restore(t, snapshot)
	f.deploys("all servers are killed, and restored from a snapshot")

	mark = len(f.agent.Log())
	f.revoke()
	f.logs(mark, "ACL not found")
	f.unharmed("the token is revoked")
	f.grant()
	f.deploys("the token is revoked, and granted again")

	f.link.Silence(false)
	f.deploys("the connections to Consul are half open, and new ones work")

	if !soak.Whole() {
		return
	}
	mark = len(f.agent.Log())
	f.allow(reads("ap"))
	f.logs(mark, "the token may not read every instance")
	f.unharmed("the token loses a service")
	f.allow(reads(""))
	f.deploys("the token loses a service, and may read it again")

	mark = len(f.agent.Log())
	f.link.Silence(true)
	f.logs(mark, "no answer in ")
	f.unharmed("all connections to Consul are half open")
	f.link.Heal()
	f.deploys("all connections to Consul are half open")
}
