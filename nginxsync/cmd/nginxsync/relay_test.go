//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/consul"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
)

// An agent that follows the relay of another host has its routes, keeps them while the relay is
// away, follows Consul itself after a while, and returns to the relay. The guard holds overlays
// that Consul does not know.
func TestAgentFollowsARelay(t *testing.T) {
	t.Parallel()
	server := consul.Start(t)
	service := strings.ToLower(fmt.Sprintf("sluice-relay-%d", os.Getpid()))
	first, second := newBed(t), newBed(t)
	const secret = "s3cret-of-the-relay"
	at := fmt.Sprintf("127.0.0.1:%d", testbed.Port(t))
	write(t, filepath.Join(first.dir, "token"), secret+"\n")
	pair := nginxtest.Pair(t, first.dir)
	write(t, filepath.Join(first.dir, "routes.json"), fmt.Sprintf(
		`{"overlays": {%q: {"hello_web": [{"id": "i9", "addr": %q, "version": "v9"}]}}}`, vipA,
		nginxtest.Backend(t, "v9")))
	direct := fmt.Sprintf("consul: {address: %q, services: {hello_web: %s}}", server.Addr, service)
	first.configure(fmt.Sprintf(`  - %s
%s
relay: {listen: "%s", tokenFile: %s/token, cert: %[5]s, key: %[5]s}
`, direct, first.fileSource(), at, first.dir, pair))
	second.configure(fmt.Sprintf(`  - relay:
      urls: ["https://%s"]
      tokenFile: %s/token
      tls: {ca: %s, serverName: a.x}
      fallbackAfter: 1s
      fallback: [{%s}]
`, at, first.dir, pair, direct))
	v1 := first.register(server, service, "v1")
	first.agent.Start()
	second.agent.Start()
	for _, b := range []*bed{first, second} {
		b.answers(vipB, "/", "v1")
		b.answers(vipA, "/", "v9")
	}
	require.Contains(t, second.ask("status", "-json"), `"connected": true`)

	first.agent.Kill()
	first.register(server, service, "v2")
	require.NoError(t, server.Client.Agent().ServiceDeregister(v1))
	second.answers(vipB, "/", "v2")
	second.answers(vipA, "/", "v9")
	first.answers(vipB, "/", "v1")
	status := second.ask("status", "-json")
	require.Contains(t, status, `"fallback": true`)
	require.Contains(t, second.ask("held"), vipA.String()+"/hello_web\t")

	first.agent.Start()
	first.answers(vipB, "/", "v2")
	nginxtest.Poll(t, "the relay is followed again", func() error {
		status = second.ask("status", "-json")
		if !strings.Contains(status, `"fallback": false`) {
			return fmt.Errorf("%s", status)
		}
		return nil
	})
	first.register(server, service, "v3")
	require.NoError(t, server.Client.Agent().ServiceDeregister(service+"-v2"))
	second.answers(vipB, "/", "v3")
	second.answers(vipA, "/", "v9")
	nginxtest.Poll(t, "nothing is held", func() error {
		if held := second.ask("held"); held != "" {
			return fmt.Errorf("%s", held)
		}
		return nil
	})
	require.NotContains(t, status+second.agent.Log()+first.agent.Log(), secret)
}
