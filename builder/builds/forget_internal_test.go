package builds

import (
	"context"
	"fmt"
	"testing"
)

// removals counts how often the log of each build is removed.
type removals struct {
	Logs
	of map[string]int
}

func (r removals) RemoveLog(ctx context.Context, name string) error {
	r.of[name]++
	return r.Logs.RemoveLog(ctx, name)
}

// TestForgottenOnce: removed builds are neither kept in memory nor removed again.
func TestForgottenOnce(t *testing.T) {
	t.Parallel()
	m := NewMemory()
	logs := removals{m, map[string]int{}}
	b, err := New(Config{Journal: m, Logs: logs, KeepEnded: 1})
	if err != nil {
		t.Fatal(err)
	}
	const submitted = 5
	for i := range submitted {
		id := fmt.Sprint("b", i)
		if _, err := b.Submit(t.Context(), Order{ID: id, Actor: "ann", Dockerfile: "FROM scratch",
			Repository: "r.example.com/a", Tag: "v1"}); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Cancel(t.Context(), id, "ann", "over"); err != nil {
			t.Fatal(err)
		}
		if err := b.forgetOld(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if len(logs.of) != submitted-1 {
		t.Errorf("logs of %d builds were removed, want %d", len(logs.of), submitted-1)
	}
	for id, n := range logs.of {
		if n != 1 {
			t.Errorf("the log of %s was removed %d times", id, n)
		}
	}
	if n := len(b.state.forgotten); n != 0 {
		t.Errorf("%d builds are kept in memory after their removal", n)
	}
}
