package filesource_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/atomicfile"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/filesource"
	"github.com/sluice-deploy/sluice/nginxsync/sourcetest"
)

// text is the file of a snapshot.
func text(t *testing.T, s nginxsync.Snapshot) []byte {
	t.Helper()
	baseline := map[string][]map[string]any{}
	for cluster, list := range s.Baseline {
		for _, in := range list {
			baseline[cluster] = append(baseline[cluster], map[string]any{"id": in.ID,
				"addr": in.Addr, "weight": in.Weight, "version": in.Version, "backup": in.Backup})
		}
	}
	out, err := json.Marshal(map[string]any{"baseline": baseline})
	require.NoError(t, err)
	return out
}

func TestSource(t *testing.T) {
	t.Parallel()
	sourcetest.Run(t, func(t *testing.T) *sourcetest.Harness {
		path := filepath.Join(t.TempDir(), "routes.json")
		require.NoError(t, os.WriteFile(path, []byte("{}"), 0o644))
		s, err := filesource.New(filesource.Config{Path: path, Every: time.Millisecond})
		require.NoError(t, err)
		return &sourcetest.Harness{Source: s, Set: func(next nginxsync.Snapshot) {
			require.NoError(t, atomicfile.Write(path, text(t, next), 0o644))
		}}
	})
}

// A file that is not right is an error that names it, and the next good one counts.
func TestBadFilesAreErrors(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "routes.json")
	s, err := filesource.New(filesource.Config{Path: path, Every: time.Millisecond})
	require.NoError(t, err)
	_, _, err = s.Watch(t.Context(), 0)
	require.ErrorIs(t, err, os.ErrNotExist)
	const good = `{"baseline":{"a":[{"id":"1","addr":"127.0.0.1:80"}]},` +
		`"overlays":{"10.0.0.1":{"a":[]}},"planned":["b"]}`
	require.NoError(t, os.WriteFile(path, []byte(good), 0o644))
	snapshot, revision, err := s.Watch(t.Context(), 0)
	require.NoError(t, err)
	require.NoError(t, snapshot.Validate())
	require.Len(t, snapshot.Overlays, 1)
	for bad, want := range map[string]string{
		"":                "the file is empty",
		"null":            "want a JSON object",
		good[:40]:         "unexpected EOF",
		"{} {}":           "want one JSON value",
		`{"base":{}}`:     "base",
		`{"Baseline":{}}`: "Baseline",
		`{"baseline":{"a":[{"id":"1","addr":"web:80"}]}}`: `ParseAddr("web")`,
		`{"baseline":{},"baseline":{"a":[]}}`:             "baseline",
		`{"overlays":{"here":{"a":[]}}}`:                  "here",
		`{"pools":["10.0.0.1/24"]}`:                       "write 10.0.0.0/24",
		`{"pools":["10.0.0.9-10.0.0.1"]}`:                 "want a network, an address",
		`{"pools":["10.0.0.1-2001:db8::1"]}`:              "want a network, an address",
		`{"pools":["10.0.0.0/24-10.0.1.1"]}`:              "want a network, an address",
		`{"scopes":{"10.0.0.1":{"ended":{"task":"T"}}}}`:  `want "at"`,
		`{"scopes":{"10.0.0.1":{"branch":"b"}}}`:          "branch",
		`{"tasks":{"T":"here"}}`:                          "here",
	} {
		require.NoError(t, os.WriteFile(path, []byte(bad), 0o644))
		_, _, err := s.Watch(t.Context(), revision)
		require.ErrorContains(t, err, want, bad)
		require.ErrorContains(t, err, path)
		require.ErrorIs(t, err, nginxsync.ErrInvalid)
	}
	require.NoError(t, os.WriteFile(path, []byte(good+"\n"), 0o644))
	_, next, err := s.Watch(t.Context(), revision)
	require.NoError(t, err)
	require.Equal(t, revision+1, next)
}

// The file can say all that a snapshot can.
func TestWholeSnapshot(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "routes.json")
	require.NoError(t, os.WriteFile(path, []byte(`{
	  "baseline": {"web": [{"id": "b", "addr": "10.0.0.1:80"}]},
	  "overlays": {"10.58.0.2": {"web": []}},
	  "branches": {"next": {"api": [{"id": "n1", "addr": "10.0.0.9:8080", "version": "v2"}]}},
	  "scopes": {"10.58.0.2": {"branches": ["next"]}, "10.58.0.3": {"ended":
	    {"task": "T-1", "at": "2026-11-30T12:00:00Z", "versions": {"web": "v1"}}}},
	  "pools": ["10.58.0.0/24", "10.58.1.1-10.58.1.9", "10.58.2.7", "2001:db8::/64"],
	  "tasks": {"T-2": "10.58.0.2"},
	  "planned": ["old", "10.58.0.3", "@next"]
	}`), 0o644))
	s, err := filesource.New(filesource.Config{Path: path})
	require.NoError(t, err)
	got, _, err := s.Watch(t.Context(), 0)
	require.NoError(t, err)
	require.NoError(t, got.Validate())
	addr := netip.MustParseAddr
	type clusters = map[string][]nginxsync.Instance
	require.Equal(t, nginxsync.Snapshot{
		Baseline: clusters{"web": {{ID: "b", Addr: netip.MustParseAddrPort("10.0.0.1:80")}}},
		Overlays: map[netip.Addr]map[string][]nginxsync.Instance{addr("10.58.0.2"): {"web": {}}},
		Branches: map[string]map[string][]nginxsync.Instance{"next": {"api": {{ID: "n1",
			Addr: netip.MustParseAddrPort("10.0.0.9:8080"), Version: "v2"}}}},
		Scopes: map[netip.Addr]nginxsync.Scope{
			addr("10.58.0.2"): {Branches: []string{"next"}},
			addr("10.58.0.3"): {Ended: nginxsync.Ended{Task: "T-1",
				At:       time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC),
				Versions: map[string]string{"web": "v1"}}}},
		Pools: []nginxsync.Range{{First: addr("10.58.0.0"), Last: addr("10.58.0.255")},
			{First: addr("10.58.1.1"), Last: addr("10.58.1.9")},
			{First: addr("10.58.2.7"), Last: addr("10.58.2.7")},
			{First: addr("2001:db8::"), Last: addr("2001:db8::ffff:ffff:ffff:ffff")}},
		Tasks: map[string]netip.Addr{"T-2": addr("10.58.0.2")},
		Planned: []nginxsync.Intent{{Cluster: "old", By: "file"},
			{VIP: addr("10.58.0.3"), By: "file"}, {Branch: "next", By: "file"}},
	}, got)
}

// A file in YAML says the same as one in JSON, and is as strict.
func TestYAML(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	read := func(name, text string) (nginxsync.Snapshot, error) {
		t.Helper()
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		s, err := filesource.New(filesource.Config{Path: path})
		require.NoError(t, err)
		got, _, err := s.Watch(t.Context(), 0)
		return got, err
	}
	want, err := read("routes.json", `{
	  "baseline": {"web": [{"id": "b", "addr": "10.0.0.1:80", "version": "1.10", "weight": 2}]},
	  "overlays": {"10.58.0.2": {"web": []}, "2001:db8::1": {"web": []}},
	  "branches": {"next": {"api": [{"id": "n1", "addr": "[2001:db8::2]:80", "backup": true}]}},
	  "scopes": {"10.58.0.2": {"branches": ["next"]}, "10.58.0.3": {"ended":
	    {"task": "T-1", "at": "2026-11-30T12:00:00Z", "versions": {"web": "v1"}}}},
	  "pools": ["10.58.0.0/24", "10.58.1.1-10.58.1.9"],
	  "tasks": {"T-2": "10.58.0.2"},
	  "planned": ["old", "10.58.0.3", "@next"]
	}`)
	require.NoError(t, err)
	for _, name := range []string{"routes.yaml", "routes.yml"} {
		got, err := read(name, `
baseline:
  web:
    - {id: b, addr: "10.0.0.1:80", version: 1.10, weight: 2}
overlays:
  10.58.0.2: {web: []}
  "2001:db8::1": {web: []}
branches:
  next:
    api: [{id: n1, addr: "[2001:db8::2]:80", backup: true}]
scopes:
  10.58.0.2: {branches: [next]}
  10.58.0.3:
    ended: {task: T-1, at: 2026-11-30T12:00:00Z, versions: {web: v1}}
pools: [10.58.0.0/24, 10.58.1.1-10.58.1.9]
tasks: {T-2: 10.58.0.2}
planned: [old, 10.58.0.3, "@next"]
`)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for bad, want := range map[string]string{
		"":                                       "the file is empty",
		"# nothing":                              "the file is empty",
		"null":                                   "line 1: want a YAML mapping",
		"- a":                                    "line 1: want a YAML mapping",
		"{}\n---\n{}":                            "want one YAML document",
		"baseline: {}\nbase: {}":                 "line 2: field base not found",
		"Baseline: {}":                           "line 1: field Baseline not found",
		"baseline: {}\nbaseline: {}":             `line 2: mapping key "baseline" already defined`,
		"baseline:\n  a: [{id: 1, addr: x}]":     `line 2: addr "x": want`,
		"baseline:\n  a: [{ID: 1}]":              "line 2: field ID not found",
		"baseline:\n  addr: [{ID: 1}]":           "line 2: field ID not found",
		"overlays: {here: {a: []}}":              "here",
		"pools: [10.0.0.1/24]":                   "write 10.0.0.0/24",
		"scopes: {10.0.0.1: {ended: {task: T}}}": `want "at"`,
		"baseline: [":                            "line 1: did not find",
	} {
		_, err := read("bad.yaml", bad)
		require.ErrorContains(t, err, want, bad)
		require.ErrorContains(t, err, "bad.yaml")
		require.ErrorIs(t, err, nginxsync.ErrInvalid)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	_, err := filesource.New(filesource.Config{Every: -1})
	require.ErrorContains(t, err, "filesource: Config.Path: ")
	require.ErrorContains(t, err, "filesource: Config.Every: ")
	_, err = filesource.New(filesource.Config{Path: "relative"})
	require.ErrorIs(t, err, nginxsync.ErrInvalid)
}

func ExampleNew() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "routes.json")
	err = os.WriteFile(path, []byte(`{"baseline": {"hello_web": [
	  {"id": "i1", "addr": "10.0.0.7:8080", "version": "v1"}]}}`), 0o644)
	if err != nil {
		fmt.Println(err)
		return
	}
	source, err := filesource.New(filesource.Config{Path: path})
	if err != nil {
		fmt.Println(err)
		return
	}
	snapshot, revision, err := source.Watch(context.Background(), 0)
	fmt.Println(revision, snapshot.Baseline["hello_web"][0].Addr, err)
	// Output: 1 10.0.0.7:8080 <nil>
}
