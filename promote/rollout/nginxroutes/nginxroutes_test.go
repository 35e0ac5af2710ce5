//go:build linux

package nginxroutes_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/soak"
	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/nginx"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/luadriver"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/rollout"
	"github.com/sluice-deploy/sluice/promote/rollout/nginxroutes"
	"github.com/sluice-deploy/sluice/promote/rollout/rollouttest"
)

const clusters = 30 // upstreams of the production tree

// production is a tree in which the requests below /cN/ go to the cluster cN.
func production() fstest.MapFS {
	var upstreams, locations strings.Builder
	for n := range clusters {
		fmt.Fprintf(&upstreams, "upstream c%d { server 10.9.9.1:80; }\n", n)
		fmt.Fprintf(&locations, "location /c%d/ { proxy_pass http://c%d/; }\n", n, n)
	}
	return fstest.MapFS{"nginx.conf": {Data: fmt.Appendf(nil, "user www-data;\n"+
		"pid /run/nginx.pid;\nevents { worker_connections 256; }\nhttp {\n%sserver {\n"+
		"listen 80 default_server;\n%s}\n}\n", &upstreams, &locations)}}
}

// servers is a rollout.Instances whose instances are HTTP servers of this process. Stop cuts the
// requests that an instance has.
type servers struct {
	slow time.Duration // each request takes

	mu   sync.Mutex
	list map[string]server
	// by the key of a request that waits
	gates map[string]*gate
}

type server struct {
	rollout.Instance
	http *httptest.Server
}

type gate struct{ arrived, release chan struct{} }

func newServers(slow time.Duration) *servers {
	return &servers{slow: slow, list: map[string]server{}, gates: map[string]*gate{}}
}

func (s *servers) Start(ctx context.Context, spec rollout.Spec) (rollout.Instance, error) {
	if ctx.Err() != nil {
		return rollout.Instance{}, context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, found := s.list[spec.ID]; found {
		return old.Instance, nil
	}
	if spec.Image.Version == "broken" {
		return rollout.Instance{}, &rollout.InstanceError{ID: spec.ID, Err: errors.New("ended")}
	}
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		g := s.gates[r.URL.Query().Get("hold")]
		s.mu.Unlock()
		if g != nil {
			close(g.arrived)
			<-g.release
		}
		select {
		case <-time.After(s.slow):
			_, _ = io.WriteString(w, spec.ID)
		case <-r.Context().Done():
		}
	}))
	i := rollout.Instance{Spec: spec, State: rollout.Ready,
		Addr: netip.MustParseAddrPort(h.Listener.Addr().String())}
	s.list[spec.ID] = server{i, h}
	return i, nil
}

func (s *servers) Stop(ctx context.Context, id string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s.mu.Lock()
	old, found := s.list[id]
	delete(s.list, id)
	s.mu.Unlock()
	if found {
		old.http.CloseClientConnections()
		old.http.Close()
	}
	return nil
}

func (s *servers) List(ctx context.Context) (list []rollout.Instance, err error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.list {
		list = append(list, i.Instance)
	}
	return list, nil
}

// records are rollout.Records in which one can be unreadable.
type records struct {
	*rollout.MemRecords
	mu      sync.Mutex
	damaged promote.Target
}

func (r *records) damage(target promote.Target) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.damaged = target
}

func (r *records) List(ctx context.Context) ([]rollout.Record, error) {
	list, err := r.MemRecords.List(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	others := slices.DeleteFunc(list, func(rec rollout.Record) bool {
		return rec.Target == r.damaged
	})
	if err == nil && len(others) < len(list) {
		err = &rollout.UnreadableError{Targets: []promote.Target{r.damaged},
			Err: errors.New("the record is no JSON")}
	}
	return others, err
}

// bed is an Nginx, and routes to instances in it.
type bed struct {
	*nginxroutes.Routes
	records *records
	servers *servers
	nginx   *nginx.Server
	driver  nginxsync.Driver
	state   string // the agent's state file
	port    int
}

func start(t *testing.T, slow time.Duration) *bed {
	dir := testbed.Own(t).TestDir(t, "tree")
	b := &bed{records: &records{MemRecords: rollout.NewMemRecords()}, servers: newServers(slow), port: testbed.Port(t)}
	snippets := luadriver.SnippetConfig{Socket: filepath.Join(dir, "admin.sock"),
		StateFile: filepath.Join(dir, "routes")}
	tree, err := conf.Parse(production(), "nginx.conf")
	require.NoError(t, err)
	result, err := transform.Transform(tree, transform.Rules{
		Listen: map[int]int{80: b.port},
		Main: map[string]string{"user": "", "pid": filepath.Join(dir, "nginx.pid"),
			"daemon": "off", "worker_processes": "2"},
		TempDir: dir, Snippets: luadriver.Snippets(snippets),
	})
	require.NoError(t, err)
	require.NoError(t, result.WriteTo(filepath.Join(dir, "conf")))
	b.nginx = nginx.Start(t, dir, filepath.Join(dir, "conf", "nginx.conf"))
	driver, err := luadriver.New(luadriver.Config{Socket: snippets.Socket, Timeout: time.Minute})
	require.NoError(t, err)
	b.driver, b.state = driver, snippets.StateFile
	b.Routes, err = nginxroutes.Open(t.Context(), nginxroutes.Config{
		Agent:   nginxsync.Config{Driver: driver, StateFile: snippets.StateFile},
		Records: b.records, Instances: b.servers, Environment: "stable",
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = b.Agent().Run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		list, err := b.servers.List(context.Background())
		require.NoError(t, err)
		for _, i := range list {
			require.NoError(t, b.servers.Stop(context.Background(), i.ID))
		}
	})
	return b
}

// Apply writes the assignment down first, as a Rollout does.
func (b *bed) Apply(ctx context.Context, a rollout.Assignment) error {
	var ids []string
	for _, i := range a.Instances {
		ids = append(ids, i.ID)
	}
	_, err := b.records.Update(context.WithoutCancel(ctx), a.Target,
		func(rec rollout.Record) (rollout.Record, error) {
			if a.Revision > rec.Revision {
				rec.Revision, rec.Serving = a.Revision, ids
			}
			return rec, nil
		})
	if err != nil {
		return err
	}
	return b.Routes.Apply(ctx, a)
}

// get returns the answer of the target, "" for 503.
func (b *bed) get(ctx context.Context, target promote.Target, query string) (string, error) {
	url := fmt.Sprintf("http://127.0.0.1:%d/%s/?%s", b.port, target.Cluster, query)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	switch {
	case err != nil || response.StatusCode == http.StatusServiceUnavailable:
		return "", err
	case response.StatusCode != http.StatusOK:
		return "", fmt.Errorf("status %s", response.Status)
	}
	return string(body), nil
}

func (b *bed) hold(t *testing.T, target promote.Target) (release func(), done <-chan string) {
	g := &gate{make(chan struct{}), make(chan struct{})}
	b.servers.mu.Lock()
	b.servers.gates[target.Cluster] = g
	b.servers.mu.Unlock()
	answer := make(chan string, 1)
	go func() {
		id, err := b.get(context.WithoutCancel(t.Context()), target, "hold="+target.Cluster)
		if err != nil {
			id = err.Error()
		}
		answer <- id
	}()
	<-g.arrived
	return sync.OnceFunc(func() { close(g.release) }), answer
}

func image(version string) rollout.Image {
	return rollout.Image{Version: version,
		Digest:     promote.Digest(fmt.Sprintf("sha256:%064x", []byte(version))),
		Repository: "registry:5000/web"}
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	b := start(t, 0)
	var n atomic.Int64
	target := func() promote.Target {
		return promote.Target{Cluster: fmt.Sprint("c", n.Add(1)), Environment: "stable"}
	}
	rollouttest.Run(t, rollouttest.Harness{
		Instances: func(*testing.T) rollouttest.InstancesHarness {
			return rollouttest.InstancesHarness{Instances: b.servers, Target: target,
				Images: [2]rollout.Image{image("v1"), image("v2")}, Broken: image("broken")}
		},
		Routes: func(*testing.T) rollouttest.RoutesHarness {
			return rollouttest.RoutesHarness{Routes: b, Target: target,
				Instance: func(t *testing.T, at promote.Target, n uint64) rollout.Instance {
					i, err := b.servers.Start(t.Context(), rollout.Spec{
						ID: rollout.InstanceID(at, 1, n), Target: at, Image: image("v1"),
						Generation: 1, Number: n})
					require.NoError(t, err)
					return i
				},
				Ask: func(t *testing.T, target promote.Target) string {
					id, err := b.get(t.Context(), target, "")
					require.NoError(t, err)
					return id
				},
				Hold: b.hold,
			}
		},
	})
}

func deployment(version string, generation uint64) promote.Deployment {
	i := image(version)
	return promote.Deployment{
		Target:  promote.Target{Cluster: "c0", Environment: "stable"},
		Version: i.Version, Digest: i.Digest, Repository: i.Repository, Generation: generation,
	}
}

// TestDeploymentsLoseNoRequest deploys again and again under requests that take 300 ms, in one step
// and in batches. Each old instance cuts its requests when it is stopped.
func TestDeploymentsLoseNoRequest(t *testing.T) {
	t.Parallel()
	b := start(t, 300*time.Millisecond)
	policy := rollout.Policy{Count: 3}
	r, err := rollout.New(rollout.Config{Records: b.records, Instances: b.servers,
		Routes: b.Routes, Drain: time.Minute,
		Policy: func(promote.Target) rollout.Policy { return policy }})
	require.NoError(t, err)
	require.NoError(t, r.Deploy(t.Context(), deployment("v0", 1)))
	done := make(chan struct{})
	var wg sync.WaitGroup
	var answered atomic.Int64
	for range 16 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				id, err := b.get(context.WithoutCancel(t.Context()), deployment("", 0).Target, "")
				assert.NoError(t, err)
				assert.NotEmpty(t, id, "503")
				answered.Add(1)
			}
		})
	}
	deployments := soak.Count(10, 100)
	for n := range deployments {
		switch n % 5 {
		case 1:
			policy = rollout.Policy{Count: 3, Surge: 1}
		case 2:
			policy = rollout.Policy{Count: 3, Unavailable: 1}
		case 3:
			policy = rollout.Policy{Count: 3, Retain: time.Hour}
		default:
			policy = rollout.Policy{Count: 3}
		}
		require.NoError(t, r.Deploy(t.Context(), deployment(fmt.Sprint("v", n+1), uint64(n+2))))
		status, err := r.Status(t.Context(), deployment("", 0).Target)
		require.NoError(t, err)
		require.Len(t, status.Record.Serving, 3)
	}
	require.NoError(t, r.Restart(t.Context(), deployment("", 0).Target))
	close(done)
	wg.Wait()
	t.Logf("%d deployments, %d requests answered", deployments, answered.Load())
	require.NoError(t, r.Remove(t.Context(), deployment("", 1000)))
	list, err := b.servers.List(t.Context())
	require.NoError(t, err)
	require.Empty(t, list)
}

func TestConfig(t *testing.T) {
	t.Parallel()
	w := rollouttest.NewWorld()
	_, err := nginxroutes.Open(t.Context(), nginxroutes.Config{
		Agent: nginxsync.Config{Source: nginxsync.NewStaticSource(nginxsync.Snapshot{})}})
	require.ErrorIs(t, err, promote.ErrInvalid)
	for _, field := range []string{"Agent.Source", "Records", "Instances", "Environment"} {
		require.ErrorContains(t, err, "Config."+field)
	}
	_, err = nginxroutes.Open(t.Context(), nginxroutes.Config{Records: rollout.NewMemRecords(),
		Instances: w, Environment: "stable"})
	require.ErrorIs(t, err, nginxsync.ErrInvalid, "the agent has no driver")
}

// A record that cannot be read keeps its target's routes, and those of others move.
func TestDamagedRecord(t *testing.T) {
	t.Parallel()
	b := start(t, 0)
	r, err := rollout.New(rollout.Config{Records: b.records, Instances: b.servers,
		Routes: b.Routes})
	require.NoError(t, err)
	damaged, other := deployment("v1", 1), deployment("v1", 1)
	other.Cluster = "c1"
	serves := func(target promote.Target, want string) {
		t.Helper()
		id, err := b.get(t.Context(), target, "")
		require.NoError(t, err)
		require.Equal(t, want, id)
	}
	require.NoError(t, r.Deploy(t.Context(), damaged))
	require.NoError(t, r.Deploy(t.Context(), other))
	require.Nil(t, b.Damage())

	b.records.damage(damaged.Target)
	other.Version, other.Generation = "v2", 2
	require.NoError(t, r.Deploy(t.Context(), other))
	require.Equal(t, []promote.Target{damaged.Target}, b.Damage().Targets)
	serves(damaged.Target, "c0-stable-g1-1")
	serves(other.Target, "c1-stable-g2-1")
	require.NoError(t, b.Refresh(t.Context()))
	serves(damaged.Target, "c0-stable-g1-1")

	again, err := nginxroutes.Open(t.Context(), nginxroutes.Config{
		Agent: nginxsync.Config{Driver: b.driver, StateFile: b.state}, Records: b.records,
		Instances: b.servers, Environment: "stable"})
	require.NoError(t, err, "a process that never read the record")
	require.ErrorContains(t, again.Damage(), "the record is no JSON")

	b.records.damage(promote.Target{})
	require.NoError(t, r.Deploy(t.Context(), deployment("v3", 3)))
	require.Nil(t, b.Damage())
	serves(damaged.Target, "c0-stable-g3-1")
}

// A version that Nginx cannot show is refused before the old instances go.
func TestSetAside(t *testing.T) {
	t.Parallel()
	b := start(t, 0)
	r, err := rollout.New(rollout.Config{Records: b.records, Instances: b.servers,
		Routes: b.Routes})
	require.NoError(t, err)
	require.NoError(t, r.Deploy(t.Context(), deployment("v1", 1)))
	err = r.Deploy(t.Context(), deployment("v1+5", 2))
	require.ErrorIs(t, err, promote.ErrInvalid)
	id, err := b.get(t.Context(), deployment("", 0).Target, "")
	require.NoError(t, err)
	require.Equal(t, "c0-stable-g1-1", id)
	require.NoError(t, r.Deploy(t.Context(), deployment("v1", 3)), "as Promoter restores")
}
