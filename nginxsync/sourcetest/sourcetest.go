// Package sourcetest holds every nginxsync.Source to the same contract.
package sourcetest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/sluice-deploy/sluice/nginxsync"
)

// Harness is a source and the function that changes its snapshot.
type Harness struct {
	Source nginxsync.Source
	// Set makes the source supply s, now or soon.
	Set func(s nginxsync.Snapshot)
}

// Run runs the suite; each case has a harness of its own.
func Run(t *testing.T, start func(t *testing.T) *Harness) {
	cases := []struct {
		name string
		run  func(t *testing.T, h *Harness)
	}{
		{"a change is seen once", testChange},
		{"revisions in between are skipped", testSkip},
		{"every watcher sees the last change", testWatchers},
		{"a cancelled context ends the wait with its cause", testCancelled},
	}
	for _, c := range cases {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			c.run(t, start(t))
		})
	}
}

func snapshot(version string) nginxsync.Snapshot {
	addr := netip.MustParseAddrPort("127.0.0.1:8001")
	return nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{"a": {{ID: "a1", Addr: addr,
		Version: version}}}}
}

// follow watches until the source supplies the version, and returns the revision.
func follow(ctx context.Context, source nginxsync.Source, after uint64, version string) (uint64,
	error) {
	for {
		s, revision, err := source.Watch(ctx, after)
		switch {
		case err != nil:
			return 0, err
		case revision <= after:
			return 0, fmt.Errorf("revision %d after %d", revision, after)
		case s.Equal(snapshot(version)):
			return revision, nil
		}
		after = revision
	}
}

func testChange(t *testing.T, h *Harness) {
	h.Set(snapshot("v1"))
	first, err := follow(t.Context(), h.Source, 0, "v1")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := follow(t.Context(), h.Source, 0, "v1"); err != nil || again != first {
		t.Errorf("watch after 0 again: revision %d, %v, want %d", again, err, first)
	}
	h.Set(snapshot("v2"))
	if second, err := follow(t.Context(), h.Source, first, "v2"); err != nil || second <= first {
		t.Errorf("revision %d after %d, %v", second, first, err)
	}
}

func testSkip(t *testing.T, h *Harness) {
	h.Set(snapshot("v0"))
	first, err := follow(t.Context(), h.Source, 0, "v0")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		h.Set(snapshot(fmt.Sprintf("v%d", i+1)))
	}
	if _, err := follow(t.Context(), h.Source, first, "v50"); err != nil {
		t.Error(err)
	}
}

func testWatchers(t *testing.T, h *Harness) {
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if _, err := follow(t.Context(), h.Source, 0, "v30"); err != nil {
				t.Error(err)
			}
		})
	}
	for i := range 30 {
		h.Set(snapshot(fmt.Sprintf("v%d", i+1)))
	}
	wg.Wait()
}

func testCancelled(t *testing.T, h *Harness) {
	h.Set(snapshot("v1"))
	revision, err := follow(t.Context(), h.Source, 0, "v1")
	if err != nil {
		t.Fatal(err)
	}
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error)
	go func() {
		_, err := follow(ctx, h.Source, revision, "never")
		done <- err
	}()
	cancel(cause)
	if err := <-done; !errors.Is(err, cause) {
		t.Errorf("watch: %v, want the cause", err)
	}
	if _, _, err := h.Source.Watch(ctx, 0); !errors.Is(err, cause) {
		t.Errorf("watch with a context that has ended: %v, want the cause", err)
	}
}
