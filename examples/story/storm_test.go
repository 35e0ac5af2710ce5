package story_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/story"
	"github.com/sluice-deploy/sluice/internal/soak"
)

// known are the acknowledged versions and tasks, as the clients remember them.
type known struct {
	mu       sync.Mutex
	versions []version
	tasks    map[string]string // VIP by task, of the tasks whose end was not asked for
}

func (k *known) bound(v version) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.versions = append(k.versions, v)
}

func (k *known) anyVersion(random *rand.Rand) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.versions[random.IntN(len(k.versions))].Version
}

func (k *known) started(l lease) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tasks[l.Task] = l.VIP
}

// takeTask forgets a task, whose end is asked for next.
func (k *known) takeTask() (name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for name = range k.tasks {
		delete(k.tasks, name)
		return name
	}
	return ""
}

// TestKilledAtRandom lets four clients build, deploy, start and finish tasks and restart instances,
// and kills the server in the middle, three times for each seed. Nothing that was acknowledged is
// lost.
func TestKilledAtRandom(t *testing.T) {
	t.Parallel()
	binary, err := story.Compile(t.Context(), examples, "v1", t.TempDir())
	require.NoError(t, err)
	for seed := range soak.Count(1, 14) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) { storm(t, uint64(seed), binary) })
	}
}

func storm(t *testing.T, seed uint64, binary string) {
	s := newServer(t, "127.64.0.0/24")
	archive, err := story.Pack(binary, filepath.Join(examples, "hello", "web", "envs"))
	require.NoError(t, err)
	require.NoError(t, s.call(http.MethodPut, "/sources/hello_web", archive, nil))
	k := &known{tasks: map[string]string{}}
	require.NoError(t, s.buildOne("v1", k))
	for _, environment := range []string{"test", "sandbox", "production", "stable"} {
		require.NoError(t, s.call(http.MethodPost, "/promotions", map[string]string{
			"cluster": "hello_web", "version": "v1", "environment": environment, "expect": "any",
			"actor": "ann",
		}, nil))
	}
	kills := rand.New(rand.NewPCG(seed, 0))
	for round := range 3 {
		var clients sync.WaitGroup
		for n := range uint64(4) {
			random := rand.New(rand.NewPCG(seed, 1+10*uint64(round)+n))
			clients.Go(func() {
				for act := 0; s.act(random, k, fmt.Sprintf("%d-%d-%d", round, n, act)); act++ {
				}
			})
		}
		select { // in the middle of whatever they have come to
		case <-time.After(time.Duration(100+kills.IntN(3000)) * time.Millisecond):
		case <-t.Context().Done():
		}
		s.kill()
		clients.Wait()
		s.start()
		s.inOrder()
		s.keeps(k)
	}
}

// act does one thing, and reports whether the server was there.
func (s *server) act(random *rand.Rand, k *known, name string) bool {
	var err error
	switch random.IntN(6) {
	case 0:
		err = s.buildOne("v-"+name, k)
	case 1, 2:
		_ = s.call(http.MethodPost, "/promotions", map[string]string{ // others may be faster
			"cluster": "hello_web", "version": k.anyVersion(random), "environment": "test",
			"expect": "any", "actor": "ann",
		}, nil)
	case 3:
		var l lease
		request := map[string]string{"task": "t-" + name, "cluster": "hello_web",
			"version": k.anyVersion(random), "actor": "bob"}
		if s.call(http.MethodPost, "/tasks", request, &l) == nil {
			k.started(l)
		}
	case 4:
		if task := k.takeTask(); task != "" {
			_ = s.call(http.MethodDelete, "/tasks/"+task+"?actor=bob", nil, nil)
		}
	case 5:
		var running []runningInstance
		if err = s.call(http.MethodGet, "/instances", nil, &running); err == nil &&
			len(running) > 0 {
			i := running[random.IntN(len(running))]
			// it may be gone by now
			_ = s.call(http.MethodPost, "/instances/"+i.ID+"/restart?actor=bob", nil, nil)
		}
	}
	return err == nil && s.call(http.MethodGet, "/openapi.json", nil, nil) == nil
}

// buildOne builds a version and notes it when the build has succeeded.
func (s *server) buildOne(name string, k *known) error {
	var b build
	err := s.call(http.MethodPost, "/builds", map[string]string{
		"cluster": "hello_web", "version": name, "template": "go-static", "source": "hello_web",
		"actor": "ann",
	}, &b)
	for err == nil && (b.State == "queued" || b.State == "running") {
		err = s.call(http.MethodGet, "/builds/"+b.ID, nil, &b)
	}
	if err == nil && b.State != "succeeded" {
		err = fmt.Errorf("build %s: %s: %s", name, b.State, b.Error)
	}
	if err == nil {
		k.bound(version{"hello_web", name, b.Digest, "ann"})
	}
	return err
}

// keeps looks for everything that was acknowledged.
func (s *server) keeps(k *known) {
	s.t.Helper()
	now := s.state()
	for _, v := range k.versions {
		require.Contains(s.t, now.versions, v)
	}
	leased := map[string]string{}
	for _, l := range now.leases {
		if l.State == "leased" {
			leased[l.Task] = l.VIP
		}
	}
	for task, vip := range k.tasks {
		require.Equal(s.t, vip, leased[task], task)
	}
}
