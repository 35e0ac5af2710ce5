package journaltest

import (
	"context"
	"errors"
	"testing"

	"github.com/sluice-deploy/sluice/promote"
)

// RunTrimmer runs the suite of a Trimmer beside that of Run. open returns a new, empty journal each
// time, and cleans up after itself with t.Cleanup.
func RunTrimmer(t *testing.T, open func(t *testing.T) promote.Trimmer) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, promote.Trimmer){
		"trimmed entries are left out":            trim,
		"a reader that lags misses no other":      trimBehindAReader,
		"the last entry stays":                    trimTheLast,
		"a trim may be repeated":                  trimAgain,
		"a cancelled trim removes nothing":        trimCancelled,
		"clusters whose names begin the same way": trimOneOfAlike,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

// fill appends n entries to each cluster, in turn.
func fill(t *testing.T, j promote.Journal, n int, clusters ...string) {
	t.Helper()
	for seq := range uint64(n) {
		for _, cluster := range clusters {
			add(t, j, sampleOf(cluster, seq+1))
		}
	}
}

// wantSeqs holds the entries of each cluster to the numbers from first to last.
func wantSeqs(t *testing.T, entries []promote.Entry, cluster string, first, last uint64) {
	t.Helper()
	next := first
	for _, e := range entries {
		if e.Cluster != cluster {
			continue
		}
		if e.Seq != next || e.Damage != "" {
			t.Fatalf("cluster %s: entry %d (%s) stands where %d should", cluster, e.Seq, e.Damage,
				next)
		}
		next++
	}
	if next != last+1 {
		t.Fatalf("cluster %s: the entries end before %d, want %d", cluster, next, last+1)
	}
}

func trim(t *testing.T, j promote.Trimmer) {
	const n = 150 // more than fit into one transaction of Consul
	fill(t, j, n, "web", "api")
	if err := j.Trim(t.Context(), "web", n-20); err != nil {
		t.Fatal(err)
	}
	all := readAll(t, j, 0)
	wantSeqs(t, all, "web", n-19, n)
	wantSeqs(t, all, "api", 1, n)
	add(t, j, sampleOf("web", n+1))
	wantSeqs(t, readAll(t, j, 0), "web", n-19, n+1)
	if _, err := j.Append(t.Context(), sampleOf("web", 1)); !errors.Is(err, promote.ErrConflict) {
		t.Errorf("append of a trimmed number: got %v, want ErrConflict", err)
	}
}

// trimBehindAReader trims entries that a reader has not seen: it gets the rest.
func trimBehindAReader(t *testing.T, j promote.Trimmer) {
	fill(t, j, 3, "web", "api")
	first := readAll(t, j, 0)
	at := first[len(first)-1].At
	for seq := uint64(4); seq <= 40; seq++ {
		add(t, j, sampleOf("web", seq))
	}
	add(t, j, sampleOf("api", 4))
	if err := j.Trim(t.Context(), "web", 30); err != nil {
		t.Fatal(err)
	}
	rest := readAll(t, j, at)
	wantSeqs(t, rest, "web", 31, 40)
	wantSeqs(t, rest, "api", 4, 4)
	if err := j.Trim(t.Context(), "web", 39); err != nil {
		t.Fatal(err)
	}
	wantSeqs(t, readAll(t, j, at), "web", 40, 40)
}

func trimTheLast(t *testing.T, j promote.Trimmer) {
	fill(t, j, 2, "web")
	for cluster, through := range map[string]uint64{"web": 2, "none": 1} {
		if err := j.Trim(t.Context(), cluster, through); !errors.Is(err, promote.ErrInvalid) {
			t.Errorf("trim of the last entry of %s: got %v, want ErrInvalid", cluster, err)
		}
	}
	wantSeqs(t, readAll(t, j, 0), "web", 1, 2)
}

func trimAgain(t *testing.T, j promote.Trimmer) {
	fill(t, j, 9, "web")
	for _, through := range []uint64{4, 4, 2, 6} {
		if err := j.Trim(t.Context(), "web", through); err != nil {
			t.Fatal(err)
		}
		wantSeqs(t, readAll(t, j, 0), "web", max(through, 4)+1, 9)
	}
}

func trimCancelled(t *testing.T, j promote.Trimmer) {
	fill(t, j, 3, "web")
	cause := errors.New("the caller's reason")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if err := j.Trim(ctx, "web", 2); !errors.Is(err, cause) {
		t.Errorf("trim with a cancelled context: got %v, want the cause", err)
	}
	wantSeqs(t, readAll(t, j, 0), "web", 1, 3)
}

func trimOneOfAlike(t *testing.T, j promote.Trimmer) {
	alike := []string{"", "-", "w", "web", "web-", "web_a", "web/1"}
	fill(t, j, 4, alike...)
	if err := j.Trim(t.Context(), "web", 3); err != nil {
		t.Fatal(err)
	}
	if err := j.Trim(t.Context(), "", 3); err != nil {
		t.Fatal(err)
	}
	all := readAll(t, j, 0)
	for _, cluster := range alike {
		first := uint64(1)
		if cluster == "web" || cluster == "" {
			first = 4
		}
		wantSeqs(t, all, cluster, first, 4)
	}
}
