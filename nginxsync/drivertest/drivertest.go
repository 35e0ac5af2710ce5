// Package drivertest holds every nginxsync.Driver to the same contract, on a real Nginx.
package drivertest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync"
)

// Harness is one running Nginx that sends "/" to cluster "a" and "/b/" to cluster "b". A driver
// that honours balancing methods has these upstreams besides: "/hash/" goes to cluster "hash" with
// "hash $arg_key consistent", "/least/" to cluster "least" with "least_conn", "/slow/" to cluster
// "slow" whose servers have "slow_start=10h".
type Harness struct {
	Driver nginxsync.Driver
	// VIPs are two addresses that Nginx answers on, Plain is one that no overlay names.
	VIPs  [2]netip.Addr
	Plain netip.Addr
	// Get asks for a path on an address, on a connection of its own.
	Get func(ctx context.Context, to netip.Addr, path string) (Answer, error)
	// Backend starts an HTTP server whose answers begin with name and a space.
	Backend func(name string) netip.AddrPort
	// Workers are the process ids of Nginx's workers.
	Workers func() []int
	// Methods reports whether the driver honours balancing methods.
	Methods bool
}

// Answer is a response.
type Answer struct {
	Status  int
	Body    string
	VIP     string // of the response header X-Sluice-Vip
	Version string // of the response header X-Sluice-Version
}

// Run runs the suite; each case has a harness of its own.
func Run(t *testing.T, start func(t *testing.T) *Harness) {
	cases := []struct {
		name string
		run  func(t *testing.T, s *suite)
	}{
		{"nothing is routed before the first push", testEmpty},
		{"an overlay answers on its VIP only, the baseline everywhere else", testOverlay},
		{"an overlay without instances answers 503", testEmptyOverlay},
		{"instances change without another worker", testChange},
		{"a weight is a share of the requests", testWeight},
		{"a request goes on to the next instance", testRetry},
		{"a backup is asked when the others failed", testBackup},
		{"a hash keeps a key on its instance", testHash},
		{"an instance that is busy gets no more", testLeastConn},
		{"an instance that is new starts slowly", testSlowStart},
		{"a generation that is not newer is refused", testConflict},
		{"a generation in force is accepted again", testAgain},
		{"routes that do not fit leave the old ones", testTooLarge},
		{"a delta changes its rows and no other", testDelta},
		{"a delta that begins elsewhere is a gap", testGap},
		{"a delta whose rows lead elsewhere is refused", testWrongDigest},
		{"a delta with a row twice is refused", testTwice},
		{"all rows of a delta change at once", testAtOnce},
		{"a writer of an earlier term is fenced", testFenced},
		{"concurrent pushes end in one of them", testConcurrent},
		{"a cancelled context is an error with its cause", testCancelled},
	}
	for _, c := range cases {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			c.run(t, &suite{Harness: start(t), t: t})
		})
	}
}

type suite struct {
	*Harness
	t    *testing.T
	last nginxsync.Routes // that push has pushed
}

// push brings a snapshot into force: the first one by a full delta, each further one by its
// difference.
func (s *suite) push(number uint64, snapshot nginxsync.Snapshot) nginxsync.Generation {
	s.t.Helper()
	r := nginxsync.NewRoutes(number, snapshot)
	delta := nginxsync.NewDelta(s.last, r)
	if s.last.Generation == (nginxsync.Generation{}) {
		delta = r.All()
	}
	if err := s.Driver.Apply(s.t.Context(), delta); err != nil {
		s.t.Fatalf("apply generation %d: %v", number, err)
	}
	s.last = r
	s.verified(r.Generation)
	return r.Generation
}

// verified polls until every worker answers with the generation.
func (s *suite) verified(g nginxsync.Generation) {
	s.t.Helper()
	var state nginxsync.DriverState
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(
		time.Millisecond) {
		var err error
		if state, err = s.Driver.State(s.t.Context()); err != nil {
			s.t.Fatalf("state: %v", err)
		}
		if state.Verified(g) {
			return
		}
	}
	s.t.Fatalf("generation %s: not verified, state %+v", g, state)
}

func (s *suite) get(to netip.Addr, path string) Answer {
	s.t.Helper()
	a, err := s.Get(s.t.Context(), to, path)
	if err != nil {
		s.t.Fatalf("get %s on %s: %v", path, to, err)
	}
	return a
}

// want asks and compares: answer is the first word of the body.
func (s *suite) want(to netip.Addr, path string, status int, answer, version string) {
	s.t.Helper()
	a := s.get(to, path)
	first, _, _ := strings.Cut(a.Body, " ")
	if a.Status != status || (status == 200 && first != answer) || a.Version != version {
		s.t.Errorf("get %s on %s: status %d, %q, version %q, want %d, %q, %q", path, to, a.Status,
			first, a.Version, status, answer, version)
	}
	if a.VIP != to.String() {
		s.t.Errorf("get %s on %s: the answer says VIP %q", path, to, a.VIP)
	}
}

func one(id, version string, addr netip.AddrPort) []nginxsync.Instance {
	return []nginxsync.Instance{{ID: id, Addr: addr, Version: version}}
}

// two is a baseline of both clusters at version v1.
func (s *suite) two() nginxsync.Snapshot {
	return nginxsync.Snapshot{
		Baseline: map[string][]nginxsync.Instance{"a": one("a1", "v1", s.Backend("a1")),
			"b": one("b1", "v1", s.Backend("b1"))},
		Overlays: map[netip.Addr]map[string][]nginxsync.Instance{},
	}
}

func testEmpty(t *testing.T, s *suite) {
	s.want(s.Plain, "/", 503, "", "none")
	state, err := s.Driver.State(t.Context())
	if err != nil || state.Applied != (nginxsync.Generation{}) {
		t.Errorf("state %+v, %v, want no generation", state, err)
	}
}

func testOverlay(_ *testing.T, s *suite) {
	snapshot := s.two()
	snapshot.Overlays[s.VIPs[0]] = map[string][]nginxsync.Instance{"a": one("a2", "v2",
		s.Backend("a2"))}
	snapshot.Overlays[s.VIPs[1]] = map[string][]nginxsync.Instance{"a": one("a3", "v3",
		s.Backend("a3")), "b": one("b2", "v2", s.Backend("b2"))}
	s.push(1, snapshot)
	s.want(s.Plain, "/", 200, "a1", "v1")
	s.want(s.Plain, "/b/", 200, "b1", "v1")
	s.want(s.VIPs[0], "/", 200, "a2", "v2")
	s.want(s.VIPs[0], "/b/", 200, "b1", "v1")
	s.want(s.VIPs[1], "/", 200, "a3", "v3")
	s.want(s.VIPs[1], "/b/", 200, "b2", "v2")
}

func testEmptyOverlay(_ *testing.T, s *suite) {
	snapshot := s.two()
	snapshot.Overlays[s.VIPs[0]] = map[string][]nginxsync.Instance{"a": {}}
	s.push(1, snapshot)
	s.want(s.VIPs[0], "/", 503, "", "none")
	s.want(s.VIPs[0], "/b/", 200, "b1", "v1")
	s.want(s.VIPs[1], "/", 200, "a1", "v1")
	delete(snapshot.Overlays, s.VIPs[0])
	s.push(2, snapshot)
	s.want(s.VIPs[0], "/", 200, "a1", "v1")
}

func testChange(t *testing.T, s *suite) {
	snapshot := s.two()
	before := s.Workers()
	for i := range 5 {
		name := fmt.Sprintf("next%d", i)
		snapshot.Overlays[s.VIPs[0]] = map[string][]nginxsync.Instance{"a": one(name, name,
			s.Backend(name))}
		s.push(uint64(i+1), snapshot)
		for range 2 * len(before) { // enough for each worker to be asked, more likely than not
			s.want(s.VIPs[0], "/", 200, name, name)
		}
	}
	if after := s.Workers(); !slices.Equal(before, after) {
		t.Errorf("workers %v, before the changes %v", after, before)
	}
}

func testWeight(t *testing.T, s *suite) {
	snapshot := s.two()
	snapshot.Baseline["a"] = []nginxsync.Instance{{ID: "heavy", Addr: s.Backend("heavy"),
		Weight: 3}, {ID: "light", Addr: s.Backend("light"), Weight: 1}}
	s.push(1, snapshot)
	seen := map[string]int{}
	for range 80 {
		first, _, _ := strings.Cut(s.get(s.Plain, "/").Body, " ")
		seen[first]++
	}
	// Each worker has a turn of its own, and keeps the shares exactly: it is off by one round at
	// most.
	if off := seen["heavy"] - 60; off < -3*len(s.Workers()) || off > 3*len(s.Workers()) ||
		seen["heavy"]+seen["light"] != 80 {
		t.Errorf("80 requests were shared %v, want about 60 to 20", seen)
	}
}

func testRetry(_ *testing.T, s *suite) {
	snapshot := s.two()
	gone := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 1) // no process listens there
	snapshot.Baseline["a"] = []nginxsync.Instance{{ID: "gone", Addr: gone, Version: "v0"},
		{ID: "here", Addr: s.Backend("here"), Version: "v1"}}
	s.push(1, snapshot)
	for range 8 {
		s.want(s.Plain, "/", 200, "here", "v1")
	}
}

func testBackup(_ *testing.T, s *suite) {
	snapshot := s.two()
	gone := netip.MustParseAddrPort("127.0.0.1:1") // no process listens there
	spare := nginxsync.Instance{ID: "spare", Addr: s.Backend("spare"), Version: "v0", Backup: true}
	snapshot.Baseline["a"] = append(one("here", "v1", s.Backend("here")), spare)
	s.push(1, snapshot)
	for range 8 {
		s.want(s.Plain, "/", 200, "here", "v1")
	}
	snapshot.Baseline["a"] = append(one("here", "v1", gone), spare)
	s.push(2, snapshot)
	for range 8 {
		s.want(s.Plain, "/", 200, "spare", "v0")
	}
	snapshot.Baseline["a"] = []nginxsync.Instance{spare}
	s.push(3, snapshot)
	s.want(s.Plain, "/", 200, "spare", "v0")
}

// several starts n instances.
func (s *suite) several(n int) []nginxsync.Instance {
	var list []nginxsync.Instance
	for i := range n {
		name := fmt.Sprintf("n%d", i)
		list = append(list, nginxsync.Instance{ID: name, Addr: s.Backend(name), Weight: 1 + i%2})
	}
	return list
}

func (s *suite) answer(path string) string {
	s.t.Helper()
	a := s.get(s.Plain, path)
	first, _, _ := strings.Cut(a.Body, " ")
	if a.Status != 200 {
		s.t.Fatalf("get %s: status %d: %s", path, a.Status, a.Body)
	}
	return first
}

func testHash(t *testing.T, s *suite) {
	if !s.Methods {
		return
	}
	snapshot := s.two()
	list := s.several(4)
	snapshot.Baseline["hash"] = list
	s.push(1, snapshot)
	const keys = 60
	owner, load := map[string]string{}, map[string]int{}
	for i := range keys {
		key := fmt.Sprint("/hash/?key=", i)
		owner[key] = s.answer(key)
		load[owner[key]]++
		for range 2 * len(s.Workers()) {
			if got := s.answer(key); got != owner[key] {
				t.Fatalf("%s was answered by %s, then by %s", key, owner[key], got)
			}
		}
	}
	if len(load) != len(list) {
		t.Errorf("%d keys went to %v, want all of %d instances", keys, load, len(list))
	}
	snapshot.Baseline["hash"] = list[1:]
	s.push(2, snapshot)
	for key, was := range owner {
		if got := s.answer(key); got != was && was != list[0].ID || got == list[0].ID {
			t.Errorf("%s moved from %s to %s when %s went", key, was, got, list[0].ID)
		}
	}
}

// busy is an HTTP server that sends a word to arrived for each request, and answers it when it is
// released or cancelled.
type busy struct {
	addr     netip.AddrPort
	arrived  chan struct{}
	released chan struct{}
}

func (s *suite) busy(name string) *busy {
	// more than a case sends
	b := &busy{arrived: make(chan struct{}, 1000), released: make(chan struct{})}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.arrived <- struct{}{}
		select {
		case <-b.released:
		case <-r.Context().Done():
		}
		fmt.Fprintf(w, "%s %s", name, r.RequestURI)
	}))
	s.t.Cleanup(server.Close)
	b.addr = netip.MustParseAddrPort(server.Listener.Addr().String())
	return b
}

// In each worker the instance that does not answer gets one request, and no other as long as that
// one lasts: whichever worker takes a request, there are no turns.
func testLeastConn(t *testing.T, s *suite) {
	if !s.Methods {
		return
	}
	snapshot := s.two()
	slow := s.busy("slow")
	snapshot.Baseline["least"] = []nginxsync.Instance{{ID: "slow", Addr: slow.addr},
		{ID: "free", Addr: s.Backend("free")}}
	s.push(1, snapshot)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	const requests = 40
	held := 0
	for range requests {
		answered := make(chan struct{})
		wg.Go(func() {
			defer close(answered)
			if a, err := s.Get(ctx, s.Plain, "/least/"); ctx.Err() == nil &&
				(err != nil || a.Status != 200) {
				t.Errorf("get /least/: status %d, %v", a.Status, err)
			}
		})
		select {
		case <-slow.arrived:
			held++
		case <-answered:
		}
	}
	// Turns would give it every other one. A worker may note the end of a request after the client
	// has read the answer, so one more now and then is no fault.
	if held == 0 || held > requests/4 {
		t.Errorf("the instance that is busy got %d of %d requests, want one for each of %d workers",
			held, requests, len(s.Workers()))
	}
	cancel()
	wg.Wait()
	close(slow.released)
	// Ended requests do not count any more, as soon as Nginx has noticed that the clients went.
	for deadline := time.Now().Add(time.Minute); s.answer("/least/") != "slow"; time.Sleep(
		time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the instance that was busy is not asked any more")
		}
	}
}

func testSlowStart(t *testing.T, s *suite) {
	if !s.Methods {
		return
	}
	snapshot := s.two()
	list := s.several(2)
	snapshot.Baseline["slow"] = list[:1]
	s.push(1, snapshot)
	snapshot.Baseline["slow"] = list
	s.push(2, snapshot)
	seen := map[string]int{}
	for range 40 {
		seen[s.answer("/slow/")]++
	}
	if seen[list[0].ID] < 40-len(s.Workers()) {
		t.Errorf("40 requests went to %v, want nearly all on the instance that is not new", seen)
	}
}

func testConflict(t *testing.T, s *suite) {
	snapshot := s.two()
	g := s.push(7, snapshot)
	other := s.two()
	for _, number := range []uint64{6, 7} {
		if err := s.Driver.Apply(t.Context(), nginxsync.NewRoutes(number, other).All()); !errors.Is(err,
			nginxsync.ErrConflict) {
			t.Errorf("apply generation %d over 7: %v, want ErrConflict", number, err)
		}
	}
	s.verified(g)
	s.want(s.Plain, "/", 200, "a1", "v1")
}

func testAgain(_ *testing.T, s *suite) {
	snapshot := s.two()
	s.push(3, snapshot)
	s.push(3, snapshot)
	s.want(s.Plain, "/", 200, "a1", "v1")
}

func testTooLarge(t *testing.T, s *suite) {
	snapshot := s.two()
	g := s.push(1, snapshot)
	large := s.two()
	for i := range 20_000 {
		name := fmt.Sprintf("%s-%d", strings.Repeat("x", 100), i)
		large.Baseline[name] = one(name, "v1", netip.MustParseAddrPort("127.0.0.1:9"))
	}
	err := s.Driver.Apply(t.Context(), nginxsync.NewRoutes(2, large).All())
	if !errors.Is(err, nginxsync.ErrTooLarge) {
		t.Fatalf("apply: %v, want ErrTooLarge", err)
	}
	state, _ := s.Driver.State(t.Context())
	var numbers *nginxsync.TooLargeError
	if errors.As(err, &numbers) && (numbers.Need <= numbers.Have || state.Free > state.Memory) {
		t.Errorf("apply: %v, %d of %d are free", err, state.Free, state.Memory)
	}
	s.verified(g)
	s.want(s.Plain, "/", 200, "a1", "v1")
	s.push(3, snapshot) // the room is free again
}

func testConcurrent(t *testing.T, s *suite) {
	const pushers = 8
	backends := make([]netip.AddrPort, pushers)
	for i := range backends {
		backends[i] = s.Backend(fmt.Sprintf("p%d", i))
	}
	var wg sync.WaitGroup
	for i := range pushers {
		wg.Go(func() {
			snapshot := nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{"a": one("x",
				fmt.Sprintf("p%d", i), backends[i])}}
			for n := range 20 {
				// Busy and conflict are both fine: another pusher was first.
				_ = s.Driver.Apply(t.Context(), nginxsync.NewRoutes(uint64(n*pushers+i+1),
					snapshot).All())
			}
		})
	}
	wg.Wait()
	state, err := s.Driver.State(t.Context())
	if err != nil || state.Applied.Number == 0 {
		t.Fatalf("state %+v, %v", state, err)
	}
	s.verified(state.Applied)
	want := fmt.Sprintf("p%d", (state.Applied.Number-1)%pushers)
	for range 8 {
		s.want(s.Plain, "/", 200, want, want)
	}
}

func testCancelled(t *testing.T, s *suite) {
	g := s.push(1, s.two())
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if err := s.Driver.Apply(ctx, nginxsync.NewRoutes(2, s.two()).All()); !errors.Is(err, cause) {
		t.Errorf("apply: %v, want the context's cause", err)
	}
	if _, err := s.Driver.State(ctx); !errors.Is(err, cause) {
		t.Errorf("state: %v, want the context's cause", err)
	}
	s.verified(g)
}
