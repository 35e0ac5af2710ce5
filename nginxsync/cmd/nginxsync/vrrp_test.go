//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/hosts"
	fleet "github.com/sluice-deploy/sluice/nginxsync/hosts"
)

// keepalive runs keepalived on a host. The host has the VIP while no peer of a higher priority has
// it, and gives it up while the agent says that it must not get requests.
func (s *site) keepalive(t *testing.T, priority int, peers []*site) {
	t.Helper()
	program, err := exec.LookPath("nginxsync")
	require.NoError(t, err)
	var others []string
	for _, peer := range peers {
		if peer != s {
			others = append(others, peer.IP)
		}
	}
	conf := filepath.Join(s.dir, "keepalived.conf")
	write(t, conf, fmt.Sprintf(`global_defs {
    vrrp_version 3
    script_user root
    vrrp_garp_master_repeat 5
}
vrrp_script agent {
    script "%s status -agent unix:%s/agent.sock"
    interval 1
    timeout 30
}
vrrp_instance nginx {
    state BACKUP
    interface eth0
    virtual_router_id 58
    priority %d
    nopreempt
    advert_int 0.1
    unicast_src_ip %s
    unicast_peer {
        %s
    }
    virtual_ipaddress {
        %s/32 dev eth0
    }
    track_script {
        agent
    }
}
`, program, s.dir, priority, s.IP, strings.Join(others, "\n        "), vipOut))
	testbed.Start(t, testbed.DirIn(t, s.Host.Dir, "keepalived"), testbed.Command{
		Name: "keepalived on " + s.Name, Path: testbed.NeedProgram(t, "keepalived", "keepalived"),
		Args: []string{"--dont-fork", "--log-console", "--vrrp", "--use-file", conf, "--pid",
			filepath.Join(s.dir, "keepalived.pid"), "--vrrp_pid", filepath.Join(s.dir, "vrrp.pid")},
		Netns: s.Name})
}

// holder returns the host that has the VIP.
func holder(t *testing.T, list []*site) (found *site) {
	t.Helper()
	testbed.Poll(t, "one host has the VIP", func() error {
		found = nil
		for _, s := range list {
			out, err := s.Command("ip", "-brief", "address", "show", "dev", "eth0").Output()
			if err != nil || !strings.Contains(string(out), vipOut.String()+"/32") {
				continue
			}
			if found != nil {
				return fmt.Errorf("%s and %s have it", found.Name, s.Name)
			}
			found = s
		}
		if found == nil {
			return errors.New("none has it")
		}
		return nil
	})
	return found
}

// load is clients that ask for a page on the VIP, each on one connection after another.
type load struct {
	mu       sync.Mutex
	good     int
	lost     []string
	versions map[string]int
	last     time.Time     // of a good answer
	gap      time.Duration // the longest without one
}

// start has clients ask from a host until the returned function stops them.
func (l *load) start(t *testing.T, from *hosts.Host) (stop func()) {
	l.versions = map[string]int{}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			_ = from.Do(func() error {
				for ctx.Err() == nil {
					l.note(ask(time.Second))
				}
				return nil
			})
		})
	}
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return stop
}

// ask sends one request. It opens its socket itself: it runs on another host.
func ask(limit time.Duration) (version string, err error) {
	conn, err := net.DialTimeout("tcp", vipOut.String()+":80", limit)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.0\r\nHost: %s\r\n\r\n", host); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %d", resp.StatusCode)
	}
	return resp.Header.Get("X-Sluice-Version"), nil
}

func (l *load) note(version string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.lost = append(l.lost, err.Error())
		return
	}
	now := time.Now()
	if !l.last.IsZero() {
		l.gap = max(l.gap, now.Sub(l.last))
	}
	l.good++
	l.versions[version]++
	l.last = now
}

// goesOn waits for more good answers, and returns the loss and the longest gap since the last call.
func (l *load) goesOn(t *testing.T) (lost int, gap time.Duration) {
	t.Helper()
	l.mu.Lock()
	before := l.good
	l.mu.Unlock()
	testbed.Poll(t, "the VIP answers", func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.good < before+30 {
			return fmt.Errorf("%d answers, lost %d: %q", l.good-before, len(l.lost),
				l.lost[max(0, len(l.lost)-3):])
		}
		return nil
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	lost, gap = len(l.lost), l.gap
	l.lost, l.gap = nil, 0
	return lost, gap
}

// Three Nginx hosts share a VIP by VRRP: the one that has it loses its power under load, and the
// next one is drained. Each time another host takes the VIP over, and no answer is of a wrong
// version. VRRP keeps no connections: those to the host of before are lost.
func TestHostsBehindVRRP(t *testing.T) {
	t.Parallel()
	machines := hosts.Start(t, 4)
	list, routes := sites(t, machines[:3])
	client := machines[3]
	require.NoError(t, client.Command("ip", "route", "add", "10.58.0.0/24", "dev", "eth0").Run())
	write(t, routes, overlaid(reachable(t, client, "b"), reachable(t, client, "o"), "v2"))
	for _, s := range list {
		s.agent.Start()
	}
	h := set(t, list)
	want := fleet.Want{VIP: vipOut, Clusters: map[string]string{"hello_web": "v2"}}
	testbed.Poll(t, "all hosts have the routes", func() error {
		report, err := h.Look(t.Context(), want)
		if err == nil && report.Ready() != len(list) {
			err = errors.New(report.String())
		}
		return err
	})
	for i, s := range list {
		s.keepalive(t, 100-10*i, list)
	}
	first := holder(t, list)
	l := &load{}
	stop := l.start(t, client)
	l.goesOn(t)

	lost, gap := l.goesOn(t)
	t.Logf("nothing happens: %d requests lost, longest gap %s", lost, gap)
	first.Stop()
	lost, gap = l.goesOn(t)
	t.Logf("a host loses its power: %d requests lost, longest gap %s", lost, gap)
	var rest []*site
	for _, s := range list {
		if s != first {
			rest = append(rest, s)
		}
	}
	second := holder(t, rest)

	_, err := second.client.Drain(t.Context(), "ops")
	require.NoError(t, err)
	testbed.Poll(t, "the last host has the VIP", func() error {
		if now := holder(t, rest); now == second {
			return errors.New("the drained one has it")
		}
		return nil
	})
	lost, gap = l.goesOn(t)
	t.Logf("a host is drained: %d requests lost, longest gap %s", lost, gap)
	stop()
	require.Equal(t, []string{"v2"}, keysOf(l.versions))
}

func keysOf(m map[string]int) (keys []string) {
	for k := range m {
		keys = append(keys, k)
	}
	return keys
}
