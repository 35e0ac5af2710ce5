package vip

import (
	"math/rand/v2"
	"strconv"
	"testing"
)

type word struct{ text string }

func (w *word) tableKey() string { return w.text }

func TestTable(t *testing.T) {
	t.Run("it_is_a_map", func(t *testing.T) {
		for seed := range uint64(20) {
			r := rand.New(rand.NewPCG(seed, 1))
			var table table[string, *word]
			want := map[string]*word{}
			if seed%2 == 1 {
				table.grow(1000)
			}
			most := 1 + r.IntN(3000)
			for range 20_000 {
				key := strconv.Itoa(r.IntN(most))
				switch r.IntN(4) {
				case 0, 1:
					w := &word{key}
					table.put(w)
					want[key] = w
				case 2:
					table.remove(key)
					delete(want, key)
				}
				if got := table.get(key); got != want[key] {
					t.Fatalf("seed %d: key %s: got %v, want %v", seed, key, got, want[key])
				}
			}
			checkTable(t, &table, want)
			for key := range want {
				table.remove(key)
				delete(want, key)
				if len(want)%97 == 0 {
					checkTable(t, &table, want)
				}
			}
			checkTable(t, &table, want)
		}
	})
	t.Run("an_empty_one_has_nothing", func(t *testing.T) {
		var table table[string, *word]
		table.remove("a")
		if got := table.get("a"); got != nil || table.len != 0 {
			t.Fatalf("got %v, len %d", got, table.len)
		}
	})
	t.Run("it_shrinks", func(t *testing.T) {
		var table table[string, *word]
		for i := range 100_000 {
			table.put(&word{strconv.Itoa(i)})
		}
		for i := range 100_000 {
			table.remove(strconv.Itoa(i))
		}
		slots := 0
		for i := range table.parts {
			slots += len(table.parts[i].slots)
		}
		if slots > tableParts*tableLeast {
			t.Fatalf("%d slots, want at most %d", slots, tableParts*tableLeast)
		}
	})
}

func checkTable(t *testing.T, table *table[string, *word], want map[string]*word) {
	t.Helper()
	if table.len != len(want) {
		t.Fatalf("len %d, want %d", table.len, len(want))
	}
	for key, w := range want {
		if table.get(key) != w {
			t.Fatalf("key %s: got %v, want %v", key, table.get(key), w)
		}
	}
	seen := 0
	for w := range table.all {
		if seen++; want[w.text] != w {
			t.Fatalf("all yields %v, want %v", w, want[w.text])
		}
	}
	if seen != len(want) {
		t.Fatalf("all yields %d, want %d", seen, len(want))
	}
}
