package platform_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/builder/builds"
	"github.com/sluice-deploy/sluice/examples/server/instance"
	"github.com/sluice-deploy/sluice/examples/server/platform"
	"github.com/sluice-deploy/sluice/examples/server/servertest"
	"github.com/sluice-deploy/sluice/examples/server/untar"
	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/vip"
)

func TestMain(m *testing.M) { servertest.Main(m) }

// eventually looks again until ok; nothing here depends on how long that takes.
func eventually(t *testing.T, ok func() bool, why string) {
	t.Helper()
	require.Eventually(t, ok, time.Minute, 20*time.Millisecond, why)
}

type answer struct{ Cluster, Version, Environment, VIP string }

// ask asks Nginx at addr for the front page of a production host name.
func ask(s *servertest.Server, addr netip.Addr) (a answer, err error) {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network,
				netip.AddrPortFrom(addr, uint16(s.NginxPort)).String())
		},
	}}
	response, err := client.Get("http://bj.city.example/")
	if err != nil {
		return a, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return a, errors.New(response.Status)
	}
	return a, json.NewDecoder(response.Body).Decode(&a)
}

var plain = netip.MustParseAddr("127.0.0.1")

// serves returns a function that reports whether addr answers with the version.
func serves(s *servertest.Server, addr netip.Addr, version string) func() bool {
	return func() bool {
		a, err := ask(s, addr)
		return err == nil && a.Version == version
	}
}

// ended returns a function that reports whether addr answers that its task has ended.
func ended(s *servertest.Server, addr netip.Addr) func() bool {
	return func() bool {
		_, err := ask(s, addr)
		return err != nil && err.Error() == "410 Gone"
	}
}

func taskRequest(name, version string) platform.TaskRequest {
	return platform.TaskRequest{Task: name, Cluster: "hello_web", Version: version, Actor: "bob"}
}

func instancesOf(s *servertest.Server, task string) (list []instance.Instance) {
	for _, i := range s.Platform.Instances() {
		if i.Labels["task"] == task {
			list = append(list, i)
		}
	}
	return list
}

func TestBuildsFailuresAndAnotherStart(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Config{Dir: t.TempDir()})
	p := s.Platform
	s.Upload(t, "hello_web", "v1")
	request := platform.BuildRequest{Cluster: "hello_web", Version: "v1", Template: "go-static",
		Source: "hello_web-v1", Actor: "ann"}

	for what, change := range map[string]func(*platform.BuildRequest){
		`cluster "No"`:    func(r *platform.BuildRequest) { r.Cluster = "No" },
		`version ""`:      func(r *platform.BuildRequest) { r.Version = "" },
		`source "../x"`:   func(r *platform.BuildRequest) { r.Source = "../x" },
		`template "none"`: func(r *platform.BuildRequest) { r.Template = "none" },
		"NOT_A_PARAMETER": func(r *platform.BuildRequest) {
			r.Params = map[string]string{"NOT_A_PARAMETER": "x"}
		},
		"CLUSTER_NAME": func(r *platform.BuildRequest) {
			r.Params = map[string]string{"CLUSTER_NAME": "a\nb"}
		},
	} {
		bad := request
		change(&bad)
		_, err := p.SubmitBuild(t.Context(), bad)
		require.ErrorIs(t, err, platform.ErrInvalid)
		require.ErrorContains(t, err, what)
	}
	all, err := p.Builds(t.Context())
	require.NoError(t, err)
	require.Empty(t, all, "a request that is refused leaves no trace")

	missing := request
	missing.Source = "nowhere"
	_, err = p.SubmitBuild(t.Context(), missing)
	require.ErrorIs(t, err, platform.ErrNotFound)
	require.ErrorContains(t, err, "upload it first")
	require.NotContains(t, err.Error(), s.Dir)
	require.NoError(t, p.PutSource("partial", bytes.NewReader(archive(t, map[string]string{
		"app": "x", "envs/test/f": "x", ".dockerignore": "app\n",
	}))))
	missing.Source, missing.Version = "partial", "v0"
	failed, err := p.SubmitBuild(t.Context(), missing)
	require.NoError(t, err)
	succeeded, err := p.SubmitBuild(t.Context(), request)
	require.NoError(t, err)
	failed, err = s.Ended(t.Context(), failed.ID)
	require.NoError(t, err)
	require.Equal(t, platform.BuildFailed, failed.State)
	require.Contains(t, failed.Error, "app")
	log, err := p.BuildLog(t.Context(), failed.ID, 0)
	require.NoError(t, err)
	require.Contains(t, string(log.Data), failed.Error)
	require.Equal(t, builds.Complete, log.State.Verdict)
	succeeded, err = s.Ended(t.Context(), succeeded.ID)
	require.NoError(t, err)
	require.Equal(t, platform.BuildSucceeded, succeeded.State, succeeded.Error)

	// A build that is queued when the server ends is run after the next start.
	s.Leave()
	s.Platform = nil
	s = servertest.Start(t, servertest.Config{Dir: s.Dir})
	again, err := s.Platform.SubmitBuild(t.Context(), request)
	require.NoError(t, err)
	s.Leave()
	s = servertest.Start(t, servertest.Config{Dir: s.Dir})
	again, err = s.Ended(t.Context(), again.ID)
	require.NoError(t, err)
	require.Equal(t, platform.BuildSucceeded, again.State, again.Error)
	require.Equal(t, succeeded.Digest, again.Digest, "the same input gives the same digest")
	all, err = s.Platform.Builds(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{again.ID, succeeded.ID, failed.ID},
		[]string{all[0].ID, all[1].ID, all[2].ID})
	_, err = s.Platform.Build(t.Context(), "b999999")
	require.ErrorIs(t, err, platform.ErrNotFound)
}

// archive is a tar of files; a name that ends in "->target" is a symbolic link.
func archive(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, content := range files {
		header := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)),
			Typeflag: tar.TypeReg}
		if link, target, found := strings.Cut(name, "->"); found {
			header = &tar.Header{Name: link, Linkname: target, Typeflag: tar.TypeSymlink}
			content = ""
		}
		require.NoError(t, w.WriteHeader(header))
		_, err := io.WriteString(w, content)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

func TestSources(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Config{})
	p := s.Platform
	file := filepath.Join(s.Dir, "sources", "web", "file")
	content := func() string {
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		return string(data)
	}
	require.NoError(t, p.PutSource("web", bytes.NewReader(archive(t,
		map[string]string{"file": "first", "other": "x"}))))
	require.Equal(t, "first", content())
	second := archive(t, map[string]string{"file": "second"})
	require.NoError(t, p.PutSource("web", bytes.NewReader(second)))
	require.Equal(t, "second", content())
	require.NoFileExists(t, filepath.Join(s.Dir, "sources", "web", "other"), "replaced, not merged")

	third := archive(t, map[string]string{"file": strings.Repeat("third", 1000)})
	for name, bad := range map[string][]byte{
		"cut off":    third[:len(third)/2],
		"no archive": []byte("hello"),
		"a way out":  archive(t, map[string]string{"../../file": "x"}),
		"a link and through": append(archive(t, map[string]string{"l->/tmp": ""})[:512],
			archive(t, map[string]string{"l/file": "x"})...),
	} {
		err := p.PutSource("web", bytes.NewReader(bad))
		require.True(t, errors.Is(err, untar.ErrInvalid) || errors.Is(err, untar.ErrFormat),
			"%s: %v", name, err)
		require.ErrorContains(t, err, "source web", name)
		require.Equal(t, "second", content(), "%s: the old one stays", name)
	}
	require.ErrorIs(t, p.PutSource("..", bytes.NewReader(second)), platform.ErrInvalid)
	names, err := p.Sources()
	require.NoError(t, err)
	require.Equal(t, []string{"web"}, names)
	entries, err := os.ReadDir(filepath.Join(s.Dir, "sources"))
	require.NoError(t, err)
	require.Len(t, entries, 1, "nothing of an upload is left")
}

func TestTwoPeopleDeployTheSameAtOnce(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Config{})
	versions := []string{"v1", "v2"}
	for _, version := range versions {
		s.MustBuild(t, "hello_web", version)
	}
	type result struct {
		version string
		d       promote.Deployment
		err     error
	}
	results := make(chan result, len(versions)) // one of each
	for n, version := range versions {
		go func() {
			d, err := s.Platform.Promote(t.Context(), platform.PromotionRequest{
				Cluster: "hello_web", Environment: "test", Version: version, Expect: "none",
				Actor: []string{"ann", "bob"}[n],
			})
			results <- result{version, d, err}
		}()
	}
	var won, lost result
	for range versions {
		if r := <-results; r.err == nil {
			won = r
		} else {
			lost = r
		}
	}
	require.NotEmpty(t, won.version, "one of them wins")
	var conflict *promote.ConflictError
	require.ErrorAs(t, lost.err, &conflict)
	require.Equal(t, won.version, conflict.Version)
	require.ErrorContains(t, lost.err, won.d.Actor, "the other is told who")
	require.ErrorContains(t, lost.err, won.version, "and what")
	list := s.Platform.Instances()
	require.Len(t, list, 1)
	require.Equal(t, won.version, list[0].Labels["version"])
}

func TestATaskFromStartToEnd(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Config{Pool: "127.60.9.0/30", CoolDown: time.Hour})
	p, ctx := s.Platform, t.Context()
	s.MustBuild(t, "hello_web", "v1")
	s.MustPromote(t, "hello_web", "v1", "test", "sandbox", "production", "stable")
	s.MustBuild(t, "hello_web", "v2")

	task, err := p.StartTask(ctx, taskRequest("redesign", "v2"))
	require.NoError(t, err)
	require.True(t, serves(s, task.VIP, "v2")())
	require.True(t, serves(s, plain, "v1")())
	again, err := p.StartTask(ctx, taskRequest("redesign", "v2"))
	require.NoError(t, err)
	require.Equal(t, task.VIP, again.VIP)
	require.Equal(t, task.Instances, again.Instances)
	require.True(t, again.Expires.After(task.Expires), "it lives anew")
	who, err := p.WhoIs(ctx, task.VIP)
	require.NoError(t, err)
	require.Equal(t, again, who)

	_, err = p.StartTask(ctx, taskRequest("redesign", "v1"))
	require.ErrorIs(t, err, vip.ErrConflict)
	require.ErrorContains(t, err, `"v2"`)
	s.MustBuild(t, "greet_api", "v1")
	_, err = p.StartTask(ctx, platform.TaskRequest{Task: "redesign", Cluster: "greet_api",
		Version: "v1", Actor: "bob"})
	require.ErrorIs(t, err, vip.ErrConflict)
	require.ErrorContains(t, err, "tests hello_web on VIP "+task.VIP.String())
	_, err = p.StartTask(ctx, taskRequest("redesign2", "v9"))
	require.ErrorIs(t, err, promote.ErrUnbound)
	_, err = p.StartTask(ctx, taskRequest("No/good", "v2"))
	require.ErrorIs(t, err, platform.ErrInvalid)

	// A client that has gone leaves neither a VIP nor an instance, and takes away nothing.
	gone, cancel := context.WithCancel(ctx)
	cancel()
	for _, name := range []string{"another", "redesign"} {
		_, err = p.StartTask(gone, taskRequest(name, "v2"))
		require.ErrorIs(t, err, context.Canceled)
	}
	require.True(t, serves(s, task.VIP, "v2")())
	tasks, err := p.Tasks(ctx)
	require.NoError(t, err)
	require.Len(t, tasks, 1)

	// 127.60.9.0/30 has two addresses to give.
	other, err := p.StartTask(ctx, taskRequest("v1.2_other", "v1"))
	require.NoError(t, err)
	require.NotEqual(t, task.VIP, other.VIP)
	_, err = p.StartTask(ctx, taskRequest("third", "v1"))
	require.ErrorIs(t, err, vip.ErrExhausted)
	require.ErrorContains(t, err, "0 free")
	require.Empty(t, instancesOf(s, "third"), "nothing is started that no VIP leads to")

	done, err := p.FinishTask(ctx, "redesign", "bob")
	require.NoError(t, err)
	require.Equal(t, vip.Cooling, done.State)
	require.True(t, ended(s, task.VIP)(), "the VIP answers 410")
	require.Empty(t, instancesOf(s, "redesign"))
	twice, err := p.FinishTask(ctx, "redesign", "bob")
	require.NoError(t, err)
	require.Equal(t, done.VIP, twice.VIP)
	_, err = p.FinishTask(ctx, "never-was", "bob")
	require.ErrorIs(t, err, platform.ErrNotFound)
	_, err = p.StartTask(ctx, taskRequest("third", "v1"))
	require.ErrorIs(t, err, vip.ErrExhausted, "the address of another task cools down")
	require.ErrorContains(t, err, "1 cooling")
}

func TestATaskThatWasFinishedStartsAgain(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Config{})
	s.MustBuild(t, "hello_web", "v1")
	first, err := s.Platform.StartTask(t.Context(), taskRequest("redesign", "v1"))
	require.NoError(t, err)
	_, err = s.Platform.FinishTask(t.Context(), "redesign", "bob")
	require.NoError(t, err)
	second, err := s.Platform.StartTask(t.Context(), taskRequest("redesign", "v1"))
	require.NoError(t, err)
	require.Equal(t, first.VIP, second.VIP, "a task keeps its address while that cools down")
	require.True(t, serves(s, second.VIP, "v1")())
}

func TestATaskEndsWithItsLease(t *testing.T) {
	t.Parallel()
	// less than a start takes
	s := servertest.Start(t, servertest.Config{TaskTTL: time.Millisecond})
	s.MustBuild(t, "hello_web", "v1")
	s.MustPromote(t, "hello_web", "v1", "test", "sandbox", "production", "stable")
	s.MustBuild(t, "hello_web", "v2")
	task, err := s.Platform.StartTask(t.Context(), taskRequest("forgotten", "v2"))
	require.NoError(t, err)
	require.Equal(t, vip.Leased, task.State)
	require.NotEmpty(t, task.Instances, "it was served")

	eventually(t, ended(s, task.VIP), "the VIP answers 410")
	eventually(t, func() bool { return len(instancesOf(s, "forgotten")) == 0 }, "its instances end")
	on, err := s.Platform.WhoIs(t.Context(), task.VIP)
	require.NoError(t, err)
	require.Equal(t, vip.Cooling, on.State)
	entries, err := s.Platform.Journal(t.Context(), "hello_web")
	require.NoError(t, err)
	require.Equal(t, "the lease of its VIP has ended", entries[len(entries)-1].Reason)
}

func kill(t *testing.T, pid int) {
	t.Helper()
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
}

func TestWhatIsKilledComesBack(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Config{Instances: map[string]int{"stable": 2}})
	p := s.Platform
	s.MustBuild(t, "hello_web", "v1")
	s.MustPromote(t, "hello_web", "v1", "test", "sandbox", "production", "stable")
	s.MustBuild(t, "hello_web", "v2")
	task, err := p.StartTask(t.Context(), taskRequest("redesign", "v2"))
	require.NoError(t, err)

	before := instancesOf(s, "redesign")[0]
	kill(t, before.PID)
	eventually(t, func() bool {
		now := instancesOf(s, "redesign")[0]
		return now.PID != before.PID && now.Alive()
	}, "the instance is started again")
	eventually(t, serves(s, task.VIP, "v2"), "and serves")

	// The port of an instance that is killed is taken by another program: it comes back on another
	// port.
	before = instancesOf(s, "redesign")[0]
	kill(t, before.PID)
	var thief net.Listener
	eventually(t, func() bool {
		if now := instancesOf(s, "redesign")[0]; now.PID != before.PID && now.Addr == before.Addr {
			_ = syscall.Kill(now.PID, syscall.SIGKILL) // it has come back faster than the thief
		}
		thief, err = net.Listen("tcp", before.Addr.String())
		return err == nil
	}, "the port is free")
	t.Cleanup(func() { _ = thief.Close() })
	go func() {
		for conn, err := thief.Accept(); err == nil; conn, err = thief.Accept() {
			_ = conn.Close() // until the routes follow it is asked
		}
	}()
	eventually(t, func() bool {
		return instancesOf(s, "redesign")[0].Addr != before.Addr
	}, "another port")
	eventually(t, serves(s, task.VIP, "v2"), "the routes follow")
	who, err := p.WhoIs(t.Context(), task.VIP)
	require.NoError(t, err)
	eventually(t, func() bool {
		who, err = p.WhoIs(t.Context(), task.VIP)
		return err == nil && who.Instances[0].Addr == instancesOf(s, "redesign")[0].Addr
	}, "and who asks is told")

	pid, err := os.ReadFile(filepath.Join(s.Dir, "nginx", "nginx.pid"))
	require.NoError(t, err)
	master, err := strconv.Atoi(strings.TrimSpace(string(pid)))
	require.NoError(t, err)
	kill(t, master)
	eventually(t, func() bool {
		now, err := os.ReadFile(filepath.Join(s.Dir, "nginx", "nginx.pid"))
		return err == nil && len(now) > 1 && !bytes.Equal(now, pid)
	}, "Nginx is started again")
	eventually(t, serves(s, task.VIP, "v2"), "with the routes of before")
	eventually(t, serves(s, plain, "v1"), "with the routes of before")
}

func TestRestartOfAnInstance(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Config{})
	p := s.Platform
	s.MustBuild(t, "hello_web", "v1")
	task, err := p.StartTask(t.Context(), taskRequest("redesign", "v1"))
	require.NoError(t, err)
	before, err := p.NginxStatus(t.Context())
	require.NoError(t, err)

	old := instancesOf(s, "redesign")[0]
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = p.RestartInstance(ctx, old.ID, "ann")
	require.ErrorIs(t, err, context.Canceled)
	for range 3 {
		old := instancesOf(s, "redesign")[0]
		fresh, err := p.RestartInstance(t.Context(), old.ID, "ann")
		require.NoError(t, err)
		require.NotEqual(t, old.Addr, fresh.Addr)
		require.True(t, serves(s, task.VIP, "v1")(), "the next request is right")
		require.Equal(t, []instance.Instance{fresh}, instancesOf(s, "redesign"),
			"the old one has ended")
		require.False(t, old.Alive())
		_, err = p.RestartInstance(t.Context(), old.ID, "ann")
		require.ErrorIs(t, err, platform.ErrNotFound)
	}
	after, err := p.NginxStatus(t.Context())
	require.NoError(t, err)
	for n, worker := range after.Workers {
		require.Equal(t, before.Workers[n].PID, worker.PID, "no reload")
	}
}

// TestADeploymentThatDoesNotStartLeavesWhatWas gives an image whose service ends at once.
func TestADeploymentThatDoesNotStartLeavesWhatWas(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Config{})
	s.MustBuild(t, "hello_web", "v1")
	s.MustPromote(t, "hello_web", "v1", "test")
	before := s.Platform.Instances()

	require.NoError(t, s.Platform.PutSource("broken", bytes.NewReader(archive(t, map[string]string{
		"app": "not a program", "envs/test/app/conf/app.properties": "greeting = x\n",
	}))))
	build, err := s.Platform.SubmitBuild(t.Context(), platform.BuildRequest{
		Cluster: "hello_web", Version: "v2", Template: "go-static", Source: "broken", Actor: "ann"})
	require.NoError(t, err)
	build, err = s.Ended(t.Context(), build.ID)
	require.NoError(t, err)
	require.Equal(t, platform.BuildSucceeded, build.State, build.Error)

	_, err = s.Platform.Promote(t.Context(), platform.PromotionRequest{Cluster: "hello_web",
		Environment: "test", Version: "v2", Expect: "any", Actor: "ann"})
	var failure *promote.DeployError
	require.ErrorAs(t, err, &failure)
	require.Empty(t, failure.Doubt, "what was there has been put back")
	require.Equal(t, before, s.Platform.Instances(), "and has never been away")
	_, err = s.Platform.StartTask(t.Context(), taskRequest("redesign", "v2"))
	require.ErrorAs(t, err, &failure)
	require.Len(t, s.Platform.Instances(), 1)
	require.EqualValues(t, 0, s.Platform.Pools()[0].Leased)
}

func TestAClientThatGoesAwayUndoesNothing(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Config{})
	s.MustBuild(t, "hello_web", "v1")
	s.MustBuild(t, "hello_web", "v2")
	s.MustPromote(t, "hello_web", "v1", "test")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1) // one end
	go func() {
		_, err := s.Platform.Promote(ctx, platform.PromotionRequest{Cluster: "hello_web",
			Environment: "test", Version: "v2", Expect: "any", Actor: "ann"})
		ended <- err
	}()
	last := func() (kind, version string) {
		journal, err := s.Platform.Journal(t.Context(), "hello_web")
		require.NoError(t, err)
		return journal[len(journal)-1].Kind, journal[len(journal)-1].Version
	}
	eventually(t, func() bool {
		_, version := last()
		return version == "v2"
	}, "it has begun")
	cancel()
	if err := <-ended; err != nil { // else it was faster than its client
		require.ErrorIs(t, err, context.Canceled)
	}
	eventually(t, func() bool {
		kind, _ := last()
		return kind == "succeeded"
	}, "it has gone on")
	overview, err := s.Platform.Overview(t.Context())
	require.NoError(t, err)
	for _, c := range overview.Clusters {
		for _, d := range c.Deployments["test"] {
			require.Equal(t, "v2", d.Version)
		}
	}
}
