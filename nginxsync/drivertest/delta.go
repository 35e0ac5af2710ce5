package drivertest

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"github.com/sluice-deploy/sluice/nginxsync"
)

// readBack compares the routes that the driver reads back with the last push.
func (s *suite) readBack() {
	s.t.Helper()
	got, err := s.Driver.Routes(s.t.Context())
	if err != nil || got.Generation != s.last.Generation ||
		!got.Snapshot.Equal(s.last.Snapshot) {
		s.t.Errorf("read back %+v, %v, want %+v", got, err, s.last)
	}
}

func testDelta(_ *testing.T, s *suite) {
	snapshot := s.two()
	s.readBack() // nothing yet
	s.push(1, snapshot)
	s.readBack()
	snapshot.Overlays[s.VIPs[0]] = map[string][]nginxsync.Instance{"a": one("a2", "v2",
		s.Backend("a2"))}
	s.push(2, snapshot)
	s.readBack()
	s.want(s.VIPs[0], "/", 200, "a2", "v2")
	s.want(s.VIPs[0], "/b/", 200, "b1", "v1")
	snapshot.Overlays[s.VIPs[0]]["b"] = []nginxsync.Instance{}
	snapshot.Overlays[s.VIPs[1]] = map[string][]nginxsync.Instance{"a": one("a3", "v3",
		s.Backend("a3"))}
	s.push(3, snapshot)
	s.readBack()
	s.want(s.VIPs[0], "/", 200, "a2", "v2")
	s.want(s.VIPs[0], "/b/", 503, "", "none")
	s.want(s.VIPs[1], "/", 200, "a3", "v3")
	delete(snapshot.Overlays, s.VIPs[0])
	delete(snapshot.Baseline, "b")
	s.push(4, snapshot)
	s.readBack()
	s.want(s.VIPs[0], "/", 200, "a1", "v1")
	s.want(s.VIPs[0], "/b/", 503, "", "none")
	s.want(s.VIPs[1], "/", 200, "a3", "v3")
	// Full again: rows that it does not have go.
	s.last = nginxsync.Routes{}
	s.push(5, nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{"b": one("b2", "v2",
		s.Backend("b2"))}})
	s.readBack()
	s.want(s.VIPs[1], "/", 503, "", "none")
	s.want(s.VIPs[1], "/b/", 200, "b2", "v2")
}

func testGap(t *testing.T, s *suite) {
	g := s.push(2, s.two())
	between, last := nginxsync.NewRoutes(3, s.two()), nginxsync.NewRoutes(4, s.two())
	if err := s.Driver.Apply(t.Context(), nginxsync.NewDelta(between, last)); !errors.Is(err,
		nginxsync.ErrGap) {
		t.Errorf("apply: %v, want ErrGap", err)
	}
	s.verified(g)
	s.readBack()
	s.want(s.Plain, "/", 200, "a1", "v1")
}

// A row that comes twice is refused before it does harm: both would go into the same place.
func testTwice(t *testing.T, s *suite) {
	g := s.push(1, s.two())
	next := s.two()
	next.Baseline["a"] = one("a9", "v9", s.Backend("a9"))
	delta := nginxsync.NewDelta(s.last, nginxsync.NewRoutes(2, next))
	again := delta.Rows[0]
	again.Instances = one("a8", "v8", s.Backend("a8"))
	for _, row := range []nginxsync.Row{delta.Rows[0], again,
		{VIP: again.VIP, Cluster: again.Cluster, Gone: true}} {
		twice := delta
		twice.Rows = []nginxsync.Row{delta.Rows[0], row}
		if err := s.Driver.Apply(t.Context(), twice); err == nil {
			t.Errorf("apply of a row and %+v: want an error", row)
		}
		s.verified(g)
		s.readBack()
		s.want(s.Plain, "/", 200, "a1", "v1")
	}
	if err := s.Driver.Apply(t.Context(), delta); err != nil {
		t.Errorf("apply: %v", err)
	}
	s.verified(delta.To)
	s.want(s.Plain, "/", 200, "a9", "v9")
}

func testWrongDigest(t *testing.T, s *suite) {
	g := s.push(1, s.two())
	next := s.two()
	next.Baseline["a"] = one("a9", "v9", s.Backend("a9"))
	delta := nginxsync.NewDelta(s.last, nginxsync.NewRoutes(2, next))
	delta.To.Digest = "0123456789abcdef"
	if err := s.Driver.Apply(t.Context(), delta); err == nil {
		t.Error("apply: want an error")
	}
	s.verified(g)
	s.readBack()
	s.want(s.Plain, "/", 200, "a1", "v1")
}

// Clusters a and b of a VIP go through the versions together: a client that has seen a version of
// one sees that or a later one of the other.
func testAtOnce(t *testing.T, s *suite) {
	const versions = 40
	a, b := s.Backend("a"), s.Backend("b")
	var wg sync.WaitGroup
	done := make(chan struct{})
	for _, paths := range [][2]string{{"/", "/b/"}, {"/b/", "/"}} {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				var seen [2]int
				for i, path := range paths {
					answer, err := s.Get(t.Context(), s.VIPs[0], path)
					if err != nil {
						t.Errorf("get %s: %v", path, err)
						return
					}
					_, _ = fmt.Sscanf(answer.Version, "v%d", &seen[i])
				}
				if seen[1] < seen[0] {
					t.Errorf("%s was answered by version %d, then %s by %d", paths[0], seen[0],
						paths[1], seen[1])
					return
				}
			}
		})
	}
	for i := range versions {
		version := fmt.Sprintf("v%d", i+1)
		s.push(uint64(i+1),
			nginxsync.Snapshot{Overlays: map[netip.Addr]map[string][]nginxsync.Instance{
				s.VIPs[0]: {"a": one("a", version, a), "b": one("b", version, b)}}})
	}
	close(done)
	wg.Wait()
}

func testFenced(t *testing.T, s *suite) {
	first := nginxsync.NewRoutes(1, s.two())
	apply := func(epoch uint64, writer string, d nginxsync.Delta) error {
		d.Epoch, d.Writer = epoch, writer
		return s.Driver.Apply(t.Context(), d)
	}
	if err := apply(2, "second", first.All()); err != nil {
		t.Fatalf("apply in term 2: %v", err)
	}
	next := nginxsync.NewRoutes(2, s.two())
	for _, c := range []struct {
		epoch  uint64
		writer string
	}{{1, "first"}, {2, "other"}, {0, ""}} {
		if err := apply(c.epoch, c.writer, nginxsync.NewDelta(first, next)); !errors.Is(err,
			nginxsync.ErrFenced) {
			t.Errorf("apply by %q in term %d: %v, want ErrFenced", c.writer, c.epoch, err)
		}
	}
	state, err := s.Driver.State(t.Context())
	if err != nil || state.Epoch != 2 || state.Writer != "second" ||
		state.Applied != first.Generation {
		t.Errorf("state %+v, %v, want generation 1, term 2 of \"second\"", state, err)
	}
	if err := apply(2, "second", nginxsync.NewDelta(first, next)); err != nil {
		t.Errorf("apply again in term 2: %v", err)
	}
	// The routes in force are enough to take over.
	if err := apply(3, "first", next.All()); err != nil {
		t.Errorf("take over: %v", err)
	}
	last := nginxsync.NewRoutes(3, s.two())
	if err := apply(2, "second", nginxsync.NewDelta(next, last)); !errors.Is(err,
		nginxsync.ErrFenced) {
		t.Errorf("apply in term 2 after 3: %v, want ErrFenced", err)
	}
}
