//go:build linux

package catalogtest

import (
	"context"
	"fmt"
	"net"
	"net/http/httptrace"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/assemble"
	"github.com/sluice-deploy/sluice/internal/soak"
	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/buildkit"
	"github.com/sluice-deploy/sluice/internal/testbed/engine"
	"github.com/sluice-deploy/sluice/internal/testbed/registry"
	"github.com/sluice-deploy/sluice/internal/testbed/services"
)

// service is a service that one template builds.
type service struct {
	template string
	soak     bool // make soak runs it, make test does not
	// set fills in the values of the template and the files of its build context.
	set func(t *testing.T, s *site)
	// env is the file that envconfig puts in place for the environment test.
	env string
	// envText is its content; PORT stands for the port. The default is "environment test".
	envText string
	// paths of the requests for the content of env, and of the slow one.
	asked, slow string
	code        int // exit code after the stop signal
}

// site has the files, values and port of one test.
type site struct {
	*bed
	port   int
	values map[string]string
	files  map[string]string // of the build context; "" with a "/" at the end is a directory
	// front is the URL to ask, "" for http://127.0.0.1:port.
	front string
	// working reports whether the service is at the slow request; nil looks for WORKING in its
	// output.
	working func() bool
	// answered says that the answer to the slow request has begun.
	answered atomic.Bool
}

// bed has the servers and base images of all tests.
type bed struct {
	t         *testing.T
	oci       *registry.Server
	envconfig string
	assemble  *assemble.Engine
	buildkit  func() *buildkit.Daemon

	mu    sync.Mutex
	bases map[string]func() string
}

// TestCatalog builds each template, by assemble or, where it has a RUN, by BuildKit, starts the
// image under runc, asks the service, runs its health check, and stops it while it is at work.
func TestCatalog(t *testing.T) {
	t.Parallel()
	testbed.NeedRoot(t, "containers")
	b := &bed{t: t, oci: registry.Start(t), bases: map[string]func() string{}}
	b.envconfig = filepath.Join(t.TempDir(), "envconfig")
	compile(t, "../..", b.envconfig, "./envconfig/cmd/envconfig")
	b.buildkit = sync.OnceValue(func() *buildkit.Daemon { return buildkit.Start(t, b.oci.Addr) })
	var err error
	b.assemble, err = assemble.New(assemble.Config{TempDir: t.TempDir()})
	require.NoError(t, err)
	for _, s := range templates {
		if s.soak && !soak.Whole() { // what it needs is installed by make soak alone
			continue
		}
		t.Run(s.template, func(t *testing.T) {
			t.Parallel()
			b.try(t, s)
		})
	}
}

// TestEveryTemplateIsRun holds the list of templates to the catalogue.
func TestEveryTemplateIsRun(t *testing.T) {
	t.Parallel()
	run := map[string]bool{"dotnet@1": true} // no package of Debian has the framework
	for _, s := range templates {
		run[s.template] = true
	}
	for _, tmpl := range builder.Default().Templates() {
		require.True(t, run[tmpl.ID()], "no test starts template %s", tmpl.ID())
	}
	require.Len(t, run, len(builder.Default().Templates()))
}

func compile(t *testing.T, dir, to, pkg string, env ...string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", to, pkg)
	cmd.Dir, cmd.Env = dir, append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func (b *bed) try(t *testing.T, s service) {
	at := &site{bed: b, port: testbed.Port(t), values: map[string]string{},
		files: map[string]string{}}
	s.set(t, at)
	reference := b.build(t, s, at)
	config := b.config(t, reference)
	c := engine.RunImage(t, reference, "DEPLOY_ENV=test")
	front := at.front
	if front == "" {
		front = "http://127.0.0.1:" + strconv.Itoa(at.port)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("output of %s:\n%s", s.template, c.Output())
		}
	})
	testbed.Poll(t, "the service answers with the file of its environment", func() error {
		body, err := services.Get(t.Context(), front+s.asked)
		if err == nil && strings.TrimSpace(body) != "environment test" {
			err = fmt.Errorf("answers %q", body)
		}
		return err
	})
	require.Len(t, config.Healthcheck.Test, 4)
	testbed.Poll(t, "the health check succeeds", func() error {
		said, err := c.Exec(config.Healthcheck.Test[1:]...)
		if err != nil {
			err = fmt.Errorf("%w: %s", err, said)
		}
		return err
	})

	type answer struct {
		body string
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
			GotFirstResponseByte: func() { at.answered.Store(true) },
		})
		body, err := services.Get(ctx, front+s.slow)
		answers <- answer{body, err}
	}()
	testbed.Poll(t, "the service is at work", func() error {
		if at.working != nil && at.working() || strings.Contains(c.Output(), "WORKING") {
			return nil
		}
		return fmt.Errorf("it has said: %s", c.Output())
	})
	code, err := c.Stop(2 * time.Minute)
	require.NoError(t, err)
	require.Equal(t, s.code, code, "exit code")
	a := <-answers
	require.NoError(t, a.err, "the slow request")
	require.Equal(t, "whole", strings.TrimSpace(a.body), "the slow request")
	_, err = net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(at.port))
	require.Error(t, err, "a connection after the stop")
}

// build makes the build context and builds it, and returns the image with its digest.
func (b *bed) build(t *testing.T, s service, at *site) string {
	t.Helper()
	dir := t.TempDir()
	text := s.envText
	if text == "" {
		text = "environment test\n"
	}
	at.files["envs/test/"+s.env] = strings.ReplaceAll(text, "PORT", strconv.Itoa(at.port))
	for file, content := range at.files {
		file = filepath.Join(dir, file)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(content), 0o644))
	}
	program, err := os.ReadFile(b.envconfig)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "envconfig"), program, 0o755))
	out, err := exec.Command(b.envconfig, "manifest", "--source", dir).CombinedOutput()
	require.NoError(t, err, "%s", out)

	name, version, _ := strings.Cut(s.template, "@")
	tmpl, err := builder.Default().Template(name + "@" + version)
	require.NoError(t, err)
	at.values["CLUSTER_NAME"] = "web_" + strings.ReplaceAll(name, "-", "_")
	for _, p := range tmpl.Params {
		if p.Name == "PORT" {
			at.values["PORT"] = strconv.Itoa(at.port)
		}
	}
	dockerfile, err := tmpl.Render(at.values)
	require.NoError(t, err)
	opened, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer opened.Close()
	root := builder.RootFS(opened)
	require.NoError(t, tmpl.CheckContext(root, at.values))
	repository := b.oci.Addr + "/" + name + version
	if tmpl.NeedsRun() {
		digest, err := b.buildkit().Build(t.Context(), buildkit.Build{
			Dockerfile: string(dockerfile), Context: dir, Repository: repository})
		require.NoError(t, err)
		return repository + "@" + digest
	}
	result, err := b.assemble.Build(t.Context(), builder.Request{Dockerfile: dockerfile,
		Context: root, Repository: repository, Labels: tmpl.Labels()})
	require.NoError(t, err)
	return result.Reference
}

func (b *bed) config(t *testing.T, reference string) v1.Config {
	t.Helper()
	ref, err := name.NewDigest(reference)
	require.NoError(t, err)
	img, err := remote.Image(ref)
	require.NoError(t, err)
	file, err := img.ConfigFile()
	require.NoError(t, err)
	return file.Config
}
