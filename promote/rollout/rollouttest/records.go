package rollouttest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/rollout"
)

func runRecords(t *testing.T, open func(t *testing.T) rollout.Records) {
	t.Helper()
	for _, c := range []struct {
		name string
		run  func(*testing.T, rollout.Records)
	}{
		{"a target without a record", emptyRecord},
		{"get returns the record of update", fullRecord},
		{"an error of change changes nothing", refusedChange},
		{"targets have records of their own", recordsOfTargets},
		{"a caller owns its record", ownedRecord},
		{"updates of one target follow each other", concurrentUpdates},
		{"a cancelled call returns the cause", cancelledRecords},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, open(t))
		})
	}
}

func web(task string) promote.Target {
	return promote.Target{Cluster: "web", Environment: "test", Task: task}
}

// sample returns a record with every field set.
func sample(target promote.Target) rollout.Record {
	return rollout.Record{
		Target: target, Revision: 7, Seen: 1<<63 + 5,
		Image: rollout.Image{Version: "v1", Digest: "sha256:ab", Repository: "registry:5000/web"},
		Count: 3, Done: true, Paused: true, Serving: []string{"a", "b"}, Kept: []string{"c"},
		KeptUntil: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), Replace: []string{"a"},
		Ending: []string{"d", "e"}, Started: 12,
	}
}

func set(to rollout.Record) func(rollout.Record) (rollout.Record, error) {
	return func(rollout.Record) (rollout.Record, error) { return to, nil }
}

func mustUpdate(t *testing.T, r rollout.Records, to rollout.Record) {
	t.Helper()
	got, err := r.Update(t.Context(), to.Target, set(to))
	if err != nil || !reflect.DeepEqual(got, to) {
		t.Fatalf("update to %+v: got %+v, %v", to, got, err)
	}
}

func mustGet(t *testing.T, r rollout.Records, want rollout.Record) {
	t.Helper()
	got, err := r.Get(t.Context(), want.Target)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("get %s: got %+v, %v, want %+v", want.Target, got, err, want)
	}
}

func emptyRecord(t *testing.T, r rollout.Records) {
	mustGet(t, r, rollout.Record{Target: web("a")})
	list, err := r.List(t.Context())
	if err != nil || len(list) != 0 {
		t.Fatalf("list of an empty store: %v, %v", list, err)
	}
	_, err = r.Update(t.Context(), web("a"), func(got rollout.Record) (rollout.Record, error) {
		if want := (rollout.Record{Target: web("a")}); !reflect.DeepEqual(got, want) {
			t.Errorf("update of a target without a record: got %+v, want %+v", got, want)
		}
		return got, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func fullRecord(t *testing.T, r rollout.Records) {
	full := reflect.ValueOf(sample(web("a")))
	for i := range full.NumField() {
		if full.Field(i).IsZero() {
			t.Fatalf("rollouttest: the sample lacks %s", full.Type().Field(i).Name)
		}
	}
	mustUpdate(t, r, sample(web("a")))
	mustGet(t, r, sample(web("a")))
	mustUpdate(t, r, rollout.Record{Target: web("a"), Seen: 1})
	mustGet(t, r, rollout.Record{Target: web("a"), Seen: 1})
}

func refusedChange(t *testing.T, r rollout.Records) {
	mustUpdate(t, r, sample(web("a")))
	for _, target := range []promote.Target{web("a"), web("b")} {
		_, err := r.Update(t.Context(), target, func(rec rollout.Record) (rollout.Record, error) {
			rec.Seen = 99
			return rec, errCause
		})
		if !errors.Is(err, errCause) {
			t.Errorf("update whose change refuses: got %v, want its error", err)
		}
	}
	mustGet(t, r, sample(web("a")))
	mustGet(t, r, rollout.Record{Target: web("b")})
}

func recordsOfTargets(t *testing.T, r rollout.Records) {
	want := map[promote.Target]bool{}
	for _, target := range []promote.Target{web(""), web("a"), web("ab"),
		{Cluster: "web", Environment: "stable"}, {Cluster: "we", Environment: "btest"},
		{Cluster: "web-test", Environment: "a"}} {
		mustUpdate(t, r, sample(target))
		want[target] = true
	}
	list, err := r.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, rec := range list {
		if !want[rec.Target] || !reflect.DeepEqual(rec, sample(rec.Target)) {
			t.Errorf("list has %+v", rec)
		}
		delete(want, rec.Target)
	}
	if len(want) > 0 {
		t.Errorf("list lacks %v", want)
	}
}

func ownedRecord(t *testing.T, r rollout.Records) {
	given := sample(web("a"))
	mustUpdate(t, r, given)
	given.Serving[0] = "changed"
	got, err := r.Get(t.Context(), web("a"))
	if err != nil {
		t.Fatal(err)
	}
	got.Kept[0] = "changed"
	list, err := r.List(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatalf("list: %v, %v", list, err)
	}
	list[0].Ending[0] = "changed"
	mustGet(t, r, sample(web("a")))
}

func concurrentUpdates(t *testing.T, r rollout.Records) {
	const writers, each = 8, 20
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				_, err := r.Update(t.Context(), web("a"),
					func(rec rollout.Record) (rollout.Record, error) {
						rec.Revision++
						rec.Started = rec.Revision
						return rec, nil
					})
				if err != nil {
					t.Errorf("update: %v", err)
				}
			}
		})
	}
	wg.Wait()
	mustGet(t, r, rollout.Record{Target: web("a"), Revision: writers * each,
		Started: writers * each})
}

func cancelledRecords(t *testing.T, r rollout.Records) {
	ctx := cancelled(t)
	calls := map[string]func(context.Context) error{
		"get": func(ctx context.Context) error { _, err := r.Get(ctx, web("a")); return err },
		"update": func(ctx context.Context) error {
			_, err := r.Update(ctx, web("a"), set(sample(web("a"))))
			return err
		},
		"list": func(ctx context.Context) error { _, err := r.List(ctx); return err },
	}
	for name, call := range calls {
		if err := call(ctx); !errors.Is(err, errCause) {
			t.Errorf("%s with a cancelled context: got %v, want the cause", name, err)
		}
	}
	mustGet(t, r, rollout.Record{Target: web("a")})
	for n := range 3 { // and the store goes on
		mustUpdate(t, r, sample(web(fmt.Sprint(n))))
	}
}
