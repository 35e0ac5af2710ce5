//go:build linux

package luadriver_test

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
)

// holders are backends that keep a request with ?hold until the test lets go of it.
type holders struct {
	servers []nginxsync.Instance
	held    chan string
	hold    chan struct{}
}

func newHolders(t *testing.T, n int) *holders {
	t.Helper()
	h := &holders{held: make(chan string, 16), hold: make(chan struct{})}
	for i := range n {
		id := fmt.Sprintf("i%02d", i)
		h.servers = append(h.servers, nginxsync.Instance{ID: id, Version: "v",
			Addr: respond(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Query().Has("hold") {
					h.held <- id
					select {
					case <-h.hold:
					case <-t.Context().Done():
					}
				}
				fmt.Fprint(w, id+" ")
			})})
	}
	return h
}

// keep sends a request that its instance keeps, and returns the instance and a function that ends
// the request.
func (h *holders) keep(t *testing.T, port int, path string) (id string, end func()) {
	t.Helper()
	done := make(chan string, 1)
	go func() {
		answer, _, err := whole(port, path)
		assert.NoError(t, err)
		done <- answer
	}()
	id = <-h.held
	return id, func() {
		h.hold <- struct{}{}
		assert.Equal(t, "200 "+id, <-done)
	}
}

// whole sends a request and waits until Nginx has closed its connection: only then the request does
// not count any more. It returns the status with the first word of what an instance answers, and
// the worker.
func whole(port int, path string) (answer, worker string, err error) {
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return "", "", err
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET %s HTTP/1.0\r\n\r\n", path)
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return "", "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil {
		_, err = io.Copy(io.Discard, r)
	}
	first, _, _ := strings.Cut(string(body), " ")
	if resp.StatusCode != http.StatusOK {
		first = ""
	}
	return fmt.Sprint(resp.StatusCode, " ", first), resp.Header.Get("X-Worker"), err
}

// answers counts the answers to n requests on connections of their own, and which workers gave them.
func answers(t *testing.T, port, n int, path string) (got map[string]int, workers map[string]bool) {
	t.Helper()
	got, workers = map[string]int{}, map[string]bool{}
	for range n {
		answer, worker, err := whole(port, path)
		require.NoError(t, err)
		got[answer]++
		workers[worker] = true
	}
	return got, workers
}

// always requires one answer of both workers, in 20 requests and more.
func always(t *testing.T, port int, path, want string) {
	t.Helper()
	workers := map[string]bool{}
	for n := 0; n < 20 || len(workers) < 2; n++ {
		require.Less(t, n, 1000, "one worker answers")
		got, worker := answers(t, port, 1, path)
		require.Equal(t, map[string]int{want: 1}, got, "%s on %d", path, port)
		maps.Copy(workers, worker)
	}
}

// zoned starts a pair of two workers whose upstreams each have a zone.
func zoned(t *testing.T, upstreams ...upstream) *pair {
	t.Helper()
	for i := range upstreams {
		upstreams[i].directives = "zone " + upstreams[i].name + " 64k; " + upstreams[i].directives
	}
	return pairOf(t, 2, upstreams...)
}

var others = map[string]string{"i00": "200 i01", "i01": "200 i00"}

// Where production's upstream has a zone, the workers choose by one count of the requests in flight,
// as those of plain Nginx do.
func TestWorkersShareRequestsInFlight(t *testing.T) {
	t.Parallel()
	two, full, spare := newHolders(t, 2), newHolders(t, 2), newHolders(t, 2)
	spare.servers[1].Backup = true
	p := zoned(t,
		upstream{name: "least", directives: "least_conn;", servers: two.servers},
		upstream{name: "random", directives: "random two least_conn;", servers: two.servers},
		upstream{name: "full", servers: full.servers, params: "max_conns=1"},
		upstream{name: "hash", directives: "hash $arg_key consistent;", servers: full.servers,
			params: "max_conns=1"},
		upstream{name: "spare", servers: spare.servers, params: "max_conns=1"})
	for _, port := range []int{p.plain, p.driven} {
		for _, name := range []string{"least", "random"} {
			id, end := two.keep(t, port, "/"+name+"/?hold")
			always(t, port, "/"+name+"/", others[id])
			end()
			got, _ := answers(t, port, 60, "/"+name+"/")
			require.Len(t, got, 2, "%s on %d", name, port)
		}

		_, end := full.keep(t, port, "/full/?hold")
		_, end2 := full.keep(t, port, "/full/?hold")
		always(t, port, "/full/", "502 ")
		end()
		end2()
		got, _ := answers(t, port, 20, "/full/")
		require.Equal(t, map[string]int{"200 i00": 10, "200 i01": 10}, got, port)

		id, end := full.keep(t, port, "/hash/?key=1&hold")
		always(t, port, "/hash/?key=1", others[id])
		end()
		always(t, port, "/hash/?key=1", "200 "+id)

		id, end = spare.keep(t, port, "/spare/?hold")
		require.Equal(t, "i00", id)
		always(t, port, "/spare/", "200 i01")
		end()
		always(t, port, "/spare/", "200 i00")
	}
}

// With a zone the workers take turns together: any requests that follow one another are spread as
// by one worker.
func TestWorkersShareTurns(t *testing.T) {
	t.Parallel()
	weighted := instances(t, 3)
	for i := range weighted {
		weighted[i].Weight = 2*i + 1
	}
	p := zoned(t, upstream{name: "turns", servers: instances(t, 3)},
		upstream{name: "weighted", servers: weighted})
	for _, port := range []int{p.plain, p.driven} {
		workers := map[string]bool{}
		for n := 0; n < 10 || len(workers) < 2; n++ {
			require.Less(t, n, 1000, "one worker answers")
			got, some := answers(t, port, 3, "/turns/")
			require.Equal(t, map[string]int{"200 i00": 1, "200 i01": 1, "200 i02": 1}, got, port)
			maps.Copy(workers, some)
			got, some = answers(t, port, 9, "/weighted/")
			require.Equal(t, map[string]int{"200 i00": 1, "200 i01": 3, "200 i02": 5}, got, port)
			maps.Copy(workers, some)
		}
	}
}

// With a zone an instance that fails does so for all workers, and so it is back for all.
func TestWorkersShareFailures(t *testing.T) {
	t.Parallel()
	servers := map[int][]nginxsync.Instance{}
	for _, maxFails := range []int{1, 2, 5} {
		list := instances(t, 3)
		list[2].Addr = broken(t, false)
		servers[maxFails] = list
	}
	var upstreams []upstream
	for maxFails, list := range servers {
		for name, method := range map[string]string{"turns": "", "least": "least_conn;"} {
			upstreams = append(upstreams, upstream{name: fmt.Sprint(name, maxFails), servers: list,
				directives: method, location: "proxy_next_upstream off;",
				params: fmt.Sprintf("max_fails=%d fail_timeout=1h", maxFails)})
		}
	}
	p := zoned(t, upstreams...)
	for _, u := range upstreams {
		for _, port := range []int{p.plain, p.driven} {
			workers, failures := map[string]bool{}, 0
			for n := 0; n < 60 || len(workers) < 2; n++ {
				require.Less(t, n, 1000, "one worker answers")
				got, some := answers(t, port, 1, "/"+u.name+"/")
				failures += got["502 "]
				maps.Copy(workers, some)
			}
			require.Equal(t, u.params, fmt.Sprintf("max_fails=%d fail_timeout=1h", failures),
				"%s on %d", u.name, port)
		}
	}
}

// A worker that is killed has no requests any more: the others do not wait for them.
func TestKilledWorkerHasNoRequests(t *testing.T) {
	t.Parallel()
	h := newHolders(t, 2)
	p := zoned(t, upstream{name: "a", servers: h.servers, params: "max_conns=1"})
	for range 3 {
		for range 2 {
			go func() { _, _, _ = whole(p.driven, "/a/?hold") }() // it ends with its worker
			<-h.held
		}
		always(t, p.driven, "/a/", "502 ")
		before := p.bed.Workers()
		for _, pid := range before {
			require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
		}
		nginxtest.Poll(t, "there are other workers", func() error {
			for _, pid := range p.bed.Workers() {
				if slices.Contains(before, pid) {
					return fmt.Errorf("%d is there", pid)
				}
			}
			return nil
		})
		p.bed.ready(t)
		got, _ := answers(t, p.driven, 20, "/a/")
		require.Equal(t, map[string]int{"200 i00": 10, "200 i01": 10}, got)
		h.hold <- struct{}{}
		h.hold <- struct{}{}
	}
}
