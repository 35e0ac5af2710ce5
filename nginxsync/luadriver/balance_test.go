//go:build linux

package luadriver_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// A key goes to the instance that Nginx chooses from the same servers, with weights, and while one
// of them refuses.
func TestHashesChooseAsNginx(t *testing.T) {
	t.Parallel()
	weighted := instances(t, 7)
	for i := range weighted {
		weighted[i].Weight = i%3 + 1
	}
	failing := append([]nginxsync.Instance{}, instances(t, 5)...)
	failing[2].Addr = netip.MustParseAddrPort("127.0.0.1:1")
	var upstreams []upstream
	for name, directives := range map[string]string{"consistent": "hash $arg_key consistent;",
		"plain": "hash $arg_key;", "text": "hash a${arg_key}b$arg_other;", "ip": "ip_hash;"} {
		upstreams = append(upstreams,
			upstream{name: name, directives: directives, servers: instances(t, 5)},
			upstream{name: name + "-weighted", directives: directives, servers: weighted},
			upstream{name: name + "-failing", directives: directives, servers: failing,
				params: "max_fails=1 fail_timeout=1h"})
	}
	p := newPair(t, upstreams...)
	for _, u := range upstreams {
		for i := range 250 {
			path := fmt.Sprintf("/%s/?key=%d", u.name, i*7919)
			client := fmt.Sprintf("10.%d.%d.1", i%256, i*31%256)
			if i%5 == 0 {
				client = fmt.Sprintf("2001:db8::%x", i*977)
			}
			wantStatus, want := ask(t, p.plain, http.MethodGet, path, client)
			status, got := ask(t, p.driven, http.MethodGet, path, client)
			require.Equal(t, fmt.Sprint(wantStatus, want), fmt.Sprint(status, got), "%s from %s",
				path, client)
		}
	}
}

// An instance that fails gets as many requests as Nginx gives it, also where the failure is the
// last try of its request.
func TestFailuresCountAsInNginx(t *testing.T) {
	t.Parallel()
	var upstreams []upstream
	type kind struct{ name, method string }
	var kinds []kind
	bad := map[string]netip.AddrPort{"refuses": netip.MustParseAddrPort("127.0.0.1:1"),
		"resets": broken(t, false), "hangs": broken(t, true)}
	for what, addr := range bad {
		for next, location := range map[string]string{"default": "", "off": "proxy_next_upstream " +
			"off;",
			"saved": "proxy_next_upstream off; proxy_intercept_errors on; " +
				"error_page 502 504 =200 /saved/;"} {
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				name := what + "-" + next + "-" + map[string]string{"GET": "get",
					"POST": "post"}[method]
				servers := instances(t, 2)
				servers[1].Addr = addr
				directives := location
				if what == "hangs" { // one request of each Nginx waits that long
					directives += " proxy_read_timeout 5s;"
				}
				upstreams = append(upstreams, upstream{name: name, servers: servers,
					location: directives, params: "max_fails=1 fail_timeout=1h"})
				kinds = append(kinds, kind{name, method})
			}
		}
	}
	upstreams = append(upstreams, upstream{name: "saved",
		servers: []nginxsync.Instance{{ID: "saved",
			Addr: nginxtest.Backend(t, "saved")}}})
	p := newPair(t, upstreams...)
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			count := func(port int) map[string]int {
				got := map[string]int{}
				for range 30 {
					status, first := ask(t, port, k.method, "/"+k.name+"/", "10.1.1.1")
					if status != http.StatusOK {
						first = ""
					}
					got[fmt.Sprint(status, " ", first)]++
				}
				return got
			}
			require.Equal(t, count(p.plain), count(p.driven))
		})
	}
}

// An answer of 404 that lets Nginx ask the next instance is no failure of the first.
func TestNextAnswerIsNoFailure(t *testing.T) {
	t.Parallel()
	servers := instances(t, 2)
	servers[1].Addr = respond(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("missing") {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		fmt.Fprint(w, "second ")
	})
	p := newPair(t, upstream{name: "a", servers: servers, params: "max_fails=1 fail_timeout=1h",
		location: "proxy_next_upstream error http_404;"})
	for range 4 {
		status, first := ask(t, p.driven, http.MethodGet, "/a/?missing", "10.1.1.1")
		require.Equal(t, "200 i00", fmt.Sprint(status, " ", first))
	}
	got := map[string]int{}
	for range 20 {
		_, first := ask(t, p.driven, http.MethodGet, "/a/", "10.1.1.1")
		got[first]++
	}
	require.Equal(t, map[string]int{"i00": 10, "second": 10}, got)
}

// respond is a backend with a handler.
func respond(t *testing.T, handler http.HandlerFunc) netip.AddrPort {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

// A request that began on a version ends on it or fails: neither the routes that came meanwhile nor
// the baseline answer it.
func TestRetryStaysInItsVersion(t *testing.T) {
	t.Parallel()
	b := startTree(t, `
events { }
http {
    upstream a { server 10.9.9.1:80; }
    server { listen 80; location / { proxy_pass http://a; } }
}`, transform.Rules{})
	reached := make(chan func())
	reset := respond(t, func(w http.ResponseWriter, _ *http.Request) {
		done := make(chan struct{})
		reached <- func() { close(done) }
		<-done
		panic(http.ErrAbortHandler)
	})
	baseline := one("b", "stable", nginxtest.Backend(t, "stable"))
	old := []nginxsync.Instance{{ID: "1", Addr: reset, Version: "v1"},
		{ID: "2", Addr: reset, Version: "v1"}}
	fresh := one("3", "v1", nginxtest.Backend(t, "fresh"))
	for i, c := range []struct {
		name string
		then []nginxsync.Instance // on the VIP while the request waits
		want served
	}{
		{"another version", one("4", "v2", nginxtest.Backend(t, "v2")),
			served{Status: http.StatusBadGateway, Body: "<html>", Version: "v1"}},
		{"released", nil, served{Status: http.StatusBadGateway, Body: "<html>", Version: "v1"}},
		{"the same version elsewhere", fresh, served{Status: http.StatusOK, Body: "fresh /",
			Version: "v1"}},
	} {
		b.push(t, uint64(10*i+1), baseline, old)
		answer := make(chan served, 1)
		go func() { answer <- b.ask(t, vipA, "/") }()
		fail := <-reached
		b.push(t, uint64(10*i+2), baseline, c.then)
		fail()
		var got served
		select {
		case fail = <-reached: // the other instance of the version
			fail()
			got = <-answer
		case got = <-answer:
		}
		got.Body = got.Body[:min(len(got.Body), len(c.want.Body))]
		require.Equal(t, c.want, got, c.name)
	}
}

// Shares follow the weights in force, from the first request on.
func TestSharesFollowTheWeightsInForce(t *testing.T) {
	t.Parallel()
	p := newPair(t, upstream{name: "a", servers: instances(t, 2)})
	servers := instances(t, 7)
	push := func(number uint64, weights ...int) {
		for i, w := range weights {
			servers[i].Weight = w
		}
		s := nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{"a": servers}}
		require.NoError(t, p.bed.driver.Apply(t.Context(), nginxsync.NewRoutes(number, s).All()))
	}
	count := func(n int) map[string]int {
		got := map[string]int{}
		for range n {
			_, first := ask(t, p.driven, http.MethodGet, "/a/", "10.1.1.1")
			got[first]++
		}
		return got
	}
	push(2, 1000, 1, 1, 1, 1, 1, 1)
	count(100)
	push(3, 1, 1, 1, 1, 1, 1, 2)
	require.Equal(t, map[string]int{"i00": 20, "i01": 20, "i02": 20, "i03": 20, "i04": 20,
		"i05": 20,
		"i06": 40}, count(160))

	// A new set begins anywhere in its turns: not each with the heaviest.
	first := map[string]int{}
	for n := range 40 {
		servers[0].ID = fmt.Sprintf("i00-%d", n)
		push(uint64(4+n), 3, 2, 2, 1, 1, 1, 1)
		_, name := ask(t, p.driven, http.MethodGet, "/a/", "10.1.1.1")
		first[name]++
	}
	require.Greater(t, len(first), 2, "%v", first)
}

// An instance gets no more than max_conns requests at a time; when each has as many, the answer is
// that of Nginx.
func TestMaxConnsAsInNginx(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	held := make(chan string, 8)
	holding := func(name string) netip.AddrPort {
		return respond(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Has("hold") {
				held <- name
				<-hold
			}
			fmt.Fprint(w, name+" ")
		})
	}
	servers := []nginxsync.Instance{{ID: "1", Addr: holding("1")}, {ID: "2", Addr: holding("2")}}
	p := newPair(t,
		upstream{name: "two", servers: servers, params: "max_conns=1"},
		upstream{name: "one", servers: servers[:1], params: "max_conns=1"})
	for _, port := range []int{p.plain, p.driven} {
		for name, n := range map[string]int{"two": 2, "one": 1} {
			var wg sync.WaitGroup
			for range n {
				wg.Go(func() {
					status, _ := ask(t, port, http.MethodGet, "/"+name+"/?hold", "10.1.1.1")
					assert.Equal(t, http.StatusOK, status)
				})
			}
			for range n {
				<-held
			}
			status, _ := ask(t, port, http.MethodGet, "/"+name+"/", "10.1.1.1")
			assert.Equal(t, http.StatusBadGateway, status, "%s on %d", name, port)
			for range n {
				hold <- struct{}{}
			}
			wg.Wait()
			status, _ = ask(t, port, http.MethodGet, "/"+name+"/", "10.1.1.1")
			assert.Equal(t, http.StatusOK, status, "%s on %d", name, port)
		}
	}
}

// random gives each instance its share, and random two the one with fewer requests in flight.
func TestRandomDrawsByWeight(t *testing.T) {
	t.Parallel()
	servers := instances(t, 3)
	servers[0].Weight = 4
	p := newPair(t, upstream{name: "a", directives: "random;", servers: servers},
		upstream{name: "two", directives: "random two least_conn;", servers: instances(t, 2)})
	got := map[string]int{}
	for range 600 {
		_, first := ask(t, p.driven, http.MethodGet, "/a/", "10.1.1.1")
		got[first]++
	}
	require.InDelta(t, 400, got["i00"], 80, "%v", got) // 7 standard deviations
	require.InDelta(t, 100, got["i01"], 64, "%v", got)
	require.InDelta(t, 100, got["i02"], 64, "%v", got)
	status, _ := ask(t, p.driven, http.MethodGet, "/two/", "10.1.1.1")
	require.Equal(t, http.StatusOK, status)
}
