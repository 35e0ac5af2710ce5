package web_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/sluice-deploy/sluice/examples/server/platform"
	"github.com/sluice-deploy/sluice/examples/server/servertest"
	"github.com/sluice-deploy/sluice/internal/soak"
	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/boltjournal"
)

// counted counts the work of the page's handler, by op.
type counted struct{ loads, renders atomic.Int64 }

func (c *counted) observe(op string, _ time.Duration, _ error) {
	switch op {
	case "load":
		c.loads.Add(1)
	case "render":
		c.renders.Add(1)
	}
}

// viewer is a browser that follows the front page.
type viewer struct {
	events, bytes atomic.Int64
	fetched       sync.Map // the newest tag by section
}

// open asks as a browser does; the body is compressed.
func open(t *testing.T, url string, header http.Header) *http.Response {
	r, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	require.NoError(t, err)
	r.Header = header
	r.Header.Set("Accept-Encoding", "gzip")
	response, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	t.Cleanup(func() { _ = response.Body.Close() })
	return response
}

// follow fetches the changed sections until the test ends.
func (v *viewer) follow(t *testing.T, url string) {
	lines := bufio.NewScanner(open(t, url+"/live", http.Header{}).Body)
	for lines.Scan() {
		v.bytes.Add(int64(len(lines.Bytes()) + 1))
		data, found := strings.CutPrefix(lines.Text(), "data: ")
		if !found {
			continue
		}
		var changed map[string]string
		if json.Unmarshal([]byte(data), &changed) != nil {
			return // cut off by the end of the test
		}
		for name := range changed {
			r, err := http.NewRequest("GET", url+"/sections/"+name, nil)
			if err != nil {
				return
			}
			r.Header.Set("Accept-Encoding", "gzip")
			response, err := http.DefaultClient.Do(r)
			if err != nil {
				return
			}
			n, err := io.Copy(io.Discard, response.Body)
			_ = response.Body.Close()
			if err != nil {
				return
			}
			v.bytes.Add(n)
			v.fetched.Store(name, response.Header.Get("ETag"))
		}
		v.events.Add(1)
	}
}

// TestManyViewersShareOneLook follows six builds with twenty viewers: the data read and rendered
// for one serves all.
func TestManyViewersShareOneLook(t *testing.T) {
	t.Parallel()
	var count counted
	s := servertest.Start(t, servertest.Config{Observe: count.observe})
	source := s.Upload(t, "hello_web", "v1")
	viewers := make([]viewer, 20)
	for n := range viewers {
		go viewers[n].follow(t, s.URL)
	}
	for n := range viewers {
		require.Eventually(t, func() bool {
			return viewers[n].events.Load() > 0
		}, time.Minute, time.Millisecond)
	}
	var builds []platform.Build
	for n := range 6 {
		build, err := s.Platform.SubmitBuild(t.Context(), platform.BuildRequest{
			Cluster: "hello_web", Version: fmt.Sprint("v", n), Template: "go-static",
			Source: source, Actor: "ann",
		})
		require.NoError(t, err)
		builds = append(builds, build)
	}
	for _, build := range builds { // the last one may end before others
		_, err := s.Ended(t.Context(), build.ID)
		require.NoError(t, err)
	}
	tags := map[string]string{}
	for _, name := range []string{"environments", "vips", "builds", "instances", "journal",
		"actions"} {
		response := open(t, s.URL+"/sections/"+name, http.Header{})
		tags[name] = response.Header.Get("ETag")
		require.Equal(t, "gzip", response.Header.Get("Content-Encoding"))
		again := open(t, s.URL+"/sections/"+name, http.Header{"If-None-Match": {tags[name]}})
		require.Equal(t, http.StatusNotModified, again.StatusCode)
	}
	for n := range viewers {
		require.Eventually(t, func() bool {
			for name := range tags {
				now, _ := viewers[n].fetched.Load(name)
				response := open(t, s.URL+"/sections/"+name, http.Header{})
				if now != response.Header.Get("ETag") {
					return false
				}
			}
			return true
		}, time.Minute, 50*time.Millisecond, "viewer %d sees the end", n)
	}
	renders := count.renders.Load()
	events, bytes := make([]int64, len(viewers)), make([]int64, len(viewers))
	for n := range viewers {
		events[n], bytes[n] = viewers[n].events.Load(), viewers[n].bytes.Load()
	}
	looks := count.loads.Load() // last: a look comes before what it gives
	require.LessOrEqual(t, renders, 6*looks, "a section is rendered once a look, for all viewers")
	for n := range viewers {
		require.LessOrEqual(t, events[n], looks, "viewer %d", n)
		require.Less(t, bytes[n], looks*6*4000, "viewer %d", n)
	}
	t.Logf("%d looks, %d renders, %d events and %d bytes for one viewer", looks, renders,
		events[0], bytes[0])
}

// fill writes 1,000 clusters with so many versions and builds each into the state of a server that
// does not run yet. The entries of a cluster follow each other.
func fill(t *testing.T, dir string, versions int) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(dir, "state.db"), 0o600, &bbolt.Options{NoSync: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	journal, err := boltjournal.Open(t.Context(), boltjournal.Config{DB: db})
	require.NoError(t, err)
	builds := map[string]platform.Build{}
	for n := range 1000 * versions {
		cluster := fmt.Sprintf("advertisement_engine_%03d", n/versions)
		version := fmt.Sprint("v", n%versions)
		digest := fmt.Sprintf("sha256:%064x", n)
		_, err := journal.Append(t.Context(), promote.Entry{
			Seq: uint64(n%versions + 1), Time: time.Now(), Kind: promote.Bound,
			Target: promote.Target{Cluster: cluster}, Version: version,
			Digest: promote.Digest(digest), Repository: "127.0.0.1:5800/" + cluster, Actor: "ann",
		})
		require.NoError(t, err)
		id := fmt.Sprintf("b%06d", n+1)
		builds[id] = platform.Build{
			ID: id, State: platform.BuildSucceeded, Digest: digest,
			Dockerfile: strings.Repeat("RUN true\n", 50), Queued: time.Now(),
			BuildRequest: platform.BuildRequest{Cluster: cluster, Version: version,
				Template: "go-static", Source: cluster, Actor: "ann"},
		}
	}
	require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
		bucket, err := tx.CreateBucketIfNotExists([]byte("builds"))
		if err != nil {
			return err
		}
		for id, build := range builds {
			data, err := json.Marshal(build)
			if err != nil {
				return err
			}
			if err := bucket.Put([]byte(id), data); err != nil {
				return err
			}
		}
		return bucket.SetSequence(uint64(1000 * versions))
	}))
}

func TestAThousandClusters(t *testing.T) {
	t.Parallel()
	dir, versions := t.TempDir(), soak.Count(2, 10)
	entries := uint64(1000 * versions)
	fill(t, dir, versions)
	for n := range 300 {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, "sources", fmt.Sprint("source-", n)),
			0o755))
	}
	s := servertest.Start(t, servertest.Config{Dir: dir})
	get := func(path string) string {
		t.Helper()
		start := time.Now()
		response, err := http.Get(s.URL + path)
		require.NoError(t, err)
		first := time.Since(start)
		defer response.Body.Close()
		data, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, response.StatusCode, path)
		t.Logf("%s: first byte after %s, %d bytes", path, first, len(data))
		return string(data)
	}
	for _, path := range []string{"/", "/", "/?environments=2", "/?environments=40",
		"/?find=engine_99", "/?environments=999&builds=b000100&journal=40"} {
		require.Less(t, len(get(path)), 300_000, path)
	}
	require.Contains(t, get("/?environments=2"), `<th scope="row">advertisement_engine_025</th>`)
	require.NotContains(t, get("/"), `<th scope="row">advertisement_engine_025</th>`)
	found := get("/?find=ENGINE_777")
	require.Contains(t, found, `<th scope="row">advertisement_engine_777</th>`)
	require.Contains(t, found, fmt.Sprintf("advertisement_engine_777 v%d</option>", versions-1))
	require.Contains(t, found, "advertisement_engine_777 v0</th>", "builds and journal, too")
	require.NotContains(t, found, "advertisement_engine_778")

	// Every entry of the journal is on one page, by the links from the end to the beginning.
	seen := uint64(0)
	for path := "/journal?limit=300"; path != ""; {
		response, data := s.Do(t, "GET", path, nil)
		var page []platform.Entry
		require.NoError(t, json.Unmarshal(data, &page))
		require.LessOrEqual(t, len(page), 300)
		require.Equal(t, entries-seen, page[len(page)-1].At)
		seen += uint64(len(page))
		path = ""
		if link, _, found := strings.Cut(strings.TrimPrefix(response.Header.Get("Link"),
			"</api/v1"), `>; rel="prev"`); found {
			path = link
		}
	}
	require.Equal(t, entries, seen)
	first := uint64(versions + 1) // entry of the second cluster
	for path, want := range map[string][2]uint64{
		"/journal": {entries - 99, entries}, "/journal?after=1": {2, 101},
		fmt.Sprint("/journal?after=", entries-10): {entries - 9, entries},
		"/journal?before=50":                      {1, 49},
		"/journal?cluster=advertisement_engine_001&limit=1": {
			first + uint64(versions) - 1, first + uint64(versions) - 1},
		"/journal?cluster=advertisement_engine_001&after=1&limit=2": {first, first + 1},
	} {
		var page []platform.Entry
		s.Call(t, "GET", path, nil, &page)
		require.Equal(t, want, [2]uint64{page[0].At, page[len(page)-1].At}, path)
	}
	for _, bad := range []string{"limit=0", "limit=1001", "limit=x", "after=-1", "before=0",
		"after=3&before=9"} {
		response, data := s.Do(t, "GET", "/journal?"+bad, nil)
		require.Equal(t, http.StatusBadRequest, response.StatusCode, "%s: %s", bad, data)
	}
}
