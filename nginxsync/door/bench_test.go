//go:build linux

package door_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync/door"
)

// BenchmarkRequest asks Nginx on one VIP by turns: direct, through the door in absolute form, and
// through a tunnel. It reports the medians, and the time that the door adds.
func BenchmarkRequest(b *testing.B) {
	port, _ := machine(b, "")
	r := start(b, port, nil)
	r.set(live("a", "1", "127.61.0.20"))
	direct := &http.Client{Transport: &http.Transport{}}
	address := fmt.Sprintf("http://127.61.0.20:%d/", port)
	clients := []struct {
		name   string
		client *http.Client
		url    string
	}{{"direct", direct, address}, {"door", r.client("a"), "http://bj.example/"},
		{"tunnel", tunnelled(b, r.Shared()), "http://bj.example/"}}
	took := make([][]time.Duration, len(clients))
	for b.Loop() {
		for i, c := range clients {
			begin := time.Now()
			response, err := c.client.Get(c.url)
			require.NoError(b, err)
			_, err = io.Copy(io.Discard, response.Body)
			require.NoError(b, err)
			require.NoError(b, response.Body.Close())
			took[i] = append(took[i], time.Since(begin))
		}
	}
	for i, c := range clients {
		slices.Sort(took[i])
		b.ReportMetric(float64(took[i][len(took[i])/2].Microseconds()), c.name+"-µs")
	}
}

// BenchmarkOpen opens 1,000 doors and reports the memory of one in bytes, sockets of the kernel
// left out.
func BenchmarkOpen(b *testing.B) {
	const doors = 1000
	r := start(b, 9, func(cfg *door.Config) { cfg.First, cfg.Last = 61000, 65000 })
	resident := func() float64 {
		runtime.GC()
		data, err := os.ReadFile("/proc/self/status")
		require.NoError(b, err)
		_, rest, _ := strings.Cut(string(data), "VmRSS:")
		var kB float64
		_, err = fmt.Sscan(rest, &kB)
		require.NoError(b, err)
		return kB * 1024
	}
	before := resident()
	for b.Loop() {
		for n := range doors {
			task := live(fmt.Sprint("t", n), "1", "127.61.0.20")
			r.set(task)
			_, err := r.Port(b.Context(), task.Name)
			require.NoError(b, err)
		}
	}
	b.ReportMetric((resident()-before)/1e6, "MB/1000-doors")
}

// tunnelled is a client whose connections are tunnels of the door.
func tunnelled(t testing.TB, proxy string) *http.Client {
	t.Helper()
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _,
		_ string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", proxy)
		if err != nil {
			return nil, err
		}
		_, err = io.WriteString(conn, "CONNECT bj.example:80 HTTP/1.1\r\nHost: x\r\n"+user+"\r\n")
		if err != nil {
			return nil, err
		}
		const answer = "HTTP/1.1 200 Connection established\r\n\r\n"
		got := make([]byte, len(answer))
		if _, err = io.ReadFull(conn, got); err == nil && string(got) != answer {
			err = fmt.Errorf("the door answers %q", got)
		}
		return conn, err
	}}}
}
