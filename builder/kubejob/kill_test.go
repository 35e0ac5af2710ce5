//go:build linux

package kubejob_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"testing/fstest"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/require"
	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/sluice-deploy/sluice/builder/builds"
	"github.com/sluice-deploy/sluice/builder/builds/filestore"
	"github.com/sluice-deploy/sluice/builder/kubejob"
	"github.com/sluice-deploy/sluice/internal/soak"
	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/faultproxy"
)

// platformVariable has a platform as JSON: the test binary is that platform's process then.
const platformVariable = "SLUICE_KUBEJOB_PLATFORM"

// platform is a process that submits a build, carries it out and ends with it.
type platform struct {
	API, Dir, Registry, Namespace, Image, ToolImage, Dockerfile string
	Insecure                                                    []string
}

// run is the process.
func (p platform) run(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(&rest.Config{Host: p.API, QPS: 100, Burst: 200})
	if err != nil {
		return err
	}
	store, err := filestore.Open(ctx, filestore.Config{Dir: p.Dir})
	if err != nil {
		return err
	}
	defer store.Close()
	engine, err := kubejob.New(kubejob.Config{Client: client, Namespace: p.Namespace,
		Image: p.Image, ToolImage: p.ToolImage, Insecure: p.Insecure, Logs: store,
		Ended: func(r kubejob.Report) {
			text, err := json.Marshal(r)
			if err == nil {
				err = os.WriteFile(filepath.Join(p.Dir, "report.json"), text, 0o600)
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}})
	if err != nil {
		return err
	}
	b, err := builds.New(builds.Config{Journal: store, Logs: store, Owners: store, Owner: "one",
		Engine: engine, Context: func(context.Context, builds.ContextRequest) (builds.Context,
			error) {
			return builds.Context{Files: fstest.MapFS{
				"a.txt": &fstest.MapFile{Data: []byte("A"), Mode: 0o644}}}, nil
		}})
	if err != nil {
		return err
	}
	if _, err := b.Submit(ctx, builds.Order{ID: "app", Actor: "ann", Attempts: 5, Tag: "v1",
		Repository: p.Registry + "/team/app", Dockerfile: p.Dockerfile}); err != nil {
		return err
	}
	ended := make(chan error, 1)
	run, stop := context.WithCancelCause(ctx)
	go func() { ended <- b.Run(run) }()
	build, err := b.Wait(ctx, "app")
	stop(kubejob.ErrLeft)
	<-ended
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(build)
	}
	return err
}

// asPlatform runs the platform of the environment, if there is one.
func asPlatform() (is bool) {
	text := os.Getenv(platformVariable)
	if text == "" {
		return false
	}
	var p platform
	err := json.Unmarshal([]byte(text), &p)
	if err == nil {
		err = p.run(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "platform:", err)
		os.Exit(1)
	}
	return true
}

// A build whose first Job fails and whose second one succeeds changes Jobs by these requests. The
// platform is killed at one of them.
var changes = []string{"POST the first job", "PATCH its end", "POST the second job, which is there",
	"DELETE the first job", "PATCH its finalizer", "POST the second job", "PATCH its end"}

// A platform that is killed at any request that changes Jobs, before or after the API server has
// carried it out, and starts again: the build succeeds with one Job left, whose log is kept whole.
func TestPlatformIsKilledAtEachChange(t *testing.T) {
	t.Parallel()
	for n, what := range changes {
		for when, after := range map[string]bool{"before": false, "after": true} {
			// make test: a Job that the platform has not heard of, one that is deleted and held,
			// and an end that was not told
			short := n == 0 && after || n == 3 && after || n == 6 && !after
			if !short && !soak.Whole() {
				continue
			}
			t.Run(fmt.Sprintf("%d %s %s", n, when, what), func(t *testing.T) {
				t.Parallel()
				killAt(t, n, after)
			})
		}
	}
}

func killAt(t *testing.T, n int, after bool) {
	b := start(t)
	server, err := url.Parse(b.Config.Host)
	require.NoError(t, err)
	transport, err := rest.TransportFor(b.Config)
	require.NoError(t, err)
	api := faultproxy.Start(t, "127.0.0.1", server, transport)

	p := platform{API: "http://" + api.Addr, Dir: t.TempDir(), Namespace: b.Namespace,
		Registry: b.proxy.Addr, Image: b.config.Image, ToolImage: b.config.ToolImage,
		Insecure: b.config.Insecure, Dockerfile: "FROM " + b.base +
			"\nCOPY a.txt /a\nRUN for i in $(seq 500); do echo line $i; done\n"}
	text, err := json.Marshal(p)
	require.NoError(t, err)
	// the registry takes the order, and refuses the image until a second pod asks for its order
	b.proxy.Break(faultproxy.Rule{Method: "GET", Skip: 1, Times: 1,
		Path:   regexp.MustCompile("^/v2/team/app/manifests/"),
		Before: func() { b.proxy.Break() },
	}, faultproxy.Rule{Method: "PUT", Skip: 1, Status: http.StatusServiceUnavailable,
		Path: regexp.MustCompile("^/v2/team/app/manifests/")})

	var cmd *exec.Cmd
	started := make(chan struct{})
	kill := func() {
		<-started
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
	}
	jobs := regexp.MustCompile("/namespaces/" + b.Namespace + "/jobs")
	rule := faultproxy.Rule{Method: "POST,PATCH,DELETE", Path: jobs, Skip: n, Times: 1}
	if after {
		rule.After = kill
	} else {
		rule.Before, rule.Status = kill, http.StatusGatewayTimeout
	}
	api.Break(rule)

	var out, stderr bytes.Buffer
	run := func() error {
		out.Reset()
		cmd = exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), platformVariable+"="+string(text))
		cmd.Stdout, cmd.Stderr = &out, &stderr
		err := cmd.Start()
		close(started)
		if err != nil {
			return err
		}
		return cmd.Wait()
	}
	require.Error(t, run(), "the platform was not killed: %s", &out)
	require.Equal(t, -1, cmd.ProcessState.ExitCode(), "%s", &stderr)
	started = make(chan struct{})
	require.NoError(t, run(), "%s", &stderr)

	var build builds.Build
	require.NoError(t, json.Unmarshal(out.Bytes(), &build))
	require.Equal(t, builds.StateSucceeded, build.State, "%+v", build.Failure)
	var left []batchv1.Job
	testbed.Poll(t, "one job without a finalizer", func() error {
		left = b.jobs(t)
		if len(left) != 1 || len(left[0].Finalizers) > 0 {
			return fmt.Errorf("%d jobs", len(left))
		}
		return nil
	})
	tag, err := name.NewTag(b.proxy.Addr+"/team/app:v1", name.Insecure)
	require.NoError(t, err)
	d, err := remote.Head(tag)
	require.NoError(t, err)
	require.Equal(t, d.Digest.String(), build.Result.Digest)

	text, err = os.ReadFile(filepath.Join(p.Dir, "report.json"))
	require.NoError(t, err)
	var report kubejob.Report
	require.NoError(t, json.Unmarshal(text, &report))
	require.Equal(t, builds.Complete, report.Log.Verdict)
	require.Equal(t, string(left[0].UID), report.Stored)
	store, err := filestore.Open(t.Context(), filestore.Config{Dir: p.Dir})
	require.NoError(t, err)
	defer store.Close()
	log, _, err := store.ReadLog(t.Context(), report.Stored, 0, 1<<20)
	require.NoError(t, err)
	sum := sha256.Sum256(log)
	require.Equal(t, report.SHA256, hex.EncodeToString(sum[:]))
}
