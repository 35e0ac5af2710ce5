package pod

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/internal/push"
)

// Run is the work of one pod.
type Run struct {
	Reference string   // of the order, repository@digest
	Insecure  []string // registries that speak plain HTTP, host:port
	Flags     []string // for buildkitd
	// Daemon is the address of a daemon that runs elsewhere. The default starts one.
	Daemon  string
	Cache   string // image that the cache of layers is kept in, repository:tag; none by default
	Secrets string // directory of files for RUN --mount=type=secret; none by default
	Work    string // directory for files of this run; it is made
	State   string // directory of BuildKit
	Message string // file for the verdict
	Limit   int64  // bytes of the log
	Cgroup  string // where the kernel's counters are
	Out     io.Writer
}

// Do carries the order out until ctx ends, and returns the exit code of the pod. The cause of ctx
// is the failure then.
func (r Run) Do(ctx context.Context) int {
	var text bytes.Buffer
	log := NewLog(r.Out, &text, r.Limit)
	before := oomKills(r.Cgroup)
	v, order := r.build(ctx, log)
	if f := v.Failure; f != nil {
		if ctx.Err() != nil {
			f = builder.FailureOf(context.Cause(ctx))
		} else if after := oomKills(r.Cgroup); f.Reason == builder.ReasonInfrastructure &&
			after > before {
			memory(f) // BuildKit itself was killed
			f.Retryable = false
		}
		f.Message, f.Instruction = log.Masks.String(f.Message), log.Masks.String(f.Instruction)
		for i, e := range f.Evidence {
			f.Evidence[i] = log.Masks.String(e)
		}
		v.Failure = f
		log.Line("the build failed: %s", f.Message)
	}
	v.Log = log.Trailer()
	if order.Repository != "" {
		pushing, done := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		at, err := pushLog(pushing, order.Repository, r.Insecure, text.Bytes())
		if done(); err == nil {
			v.Log.Artifact = at
		}
	}
	_ = log.End(v) // the termination message says the same
	_ = os.WriteFile(r.Message, v.Message(), 0o644)
	switch f := v.Failure; {
	case f == nil:
		return 0
	case f.Reason == builder.ReasonCommand || f.Reason == builder.ReasonDockerfile ||
		f.Reason == builder.ReasonRequest:
		return ExitUser
	}
	return ExitInfrastructure
}

func (r Run) build(ctx context.Context, log *Log) (Verdict, Order) {
	failed := func(err error) Verdict {
		return Verdict{Failure: builder.FailureOf(push.Typed(err))}
	}
	if err := errors.Join(r.masks(log), os.MkdirAll(r.Work, 0o755)); err != nil {
		return failed(err), Order{}
	}
	files := filepath.Join(r.Work, "context")
	if err := os.Mkdir(files, 0o755); err != nil {
		return failed(err), Order{}
	}
	order, err := fetch(ctx, r.Reference, r.Insecure, files)
	if err != nil {
		return failed(err), Order{}
	}
	request := builder.Request{Dockerfile: []byte(order.Dockerfile)}
	plan, err := request.Plan()
	if err != nil {
		return failed(err), order
	}
	address, stop, err := r.daemon(ctx)
	if err != nil {
		return failed(err), order
	}
	defer stop()
	v, err := r.buildctl(ctx, log, order, plan, address, files)
	if err != nil {
		return failed(err), order
	}
	return v, order
}

// masks keeps the build's secrets and the credentials for registries out of the log.
func (r Run) masks(log *Log) error {
	if r.Secrets != "" {
		names, err := r.secrets()
		if err != nil {
			return err
		}
		for _, name := range names {
			value, err := os.ReadFile(filepath.Join(r.Secrets, name))
			if err != nil {
				return err
			}
			log.Masks.Add(string(value))
		}
	}
	dir := os.Getenv("DOCKER_CONFIG")
	if dir == "" {
		return nil
	}
	text, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	var c struct {
		Auths map[string]struct{ Auth, Password, IdentityToken, RegistryToken string }
	}
	if json.Unmarshal(text, &c) != nil {
		return fmt.Errorf("%s/config.json: want the configuration file of Docker: %w", dir,
			builder.ErrInvalid)
	}
	for _, a := range c.Auths {
		for _, v := range []string{a.Auth, a.Password, a.IdentityToken, a.RegistryToken} {
			log.Masks.Add(v)
		}
	}
	return nil
}

// secrets are the names of the files that a volume of Secrets has.
func (r Run) secrets() ([]string, error) {
	entries, err := os.ReadDir(r.Secrets)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "..") { // the links of the volume
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// daemon returns the address of BuildKit, which it starts if need be, and a function that ends it.
func (r Run) daemon(ctx context.Context) (address string, stop func(), err error) {
	if r.Daemon != "" {
		return r.Daemon, func() {}, nil
	}
	var config bytes.Buffer
	for _, at := range r.Insecure {
		fmt.Fprintf(&config, "[registry.%q]\n  http = true\n", at)
	}
	file := filepath.Join(r.Work, "buildkitd.toml")
	if err := os.WriteFile(file, config.Bytes(), 0o644); err != nil {
		return "", nil, err
	}
	address = "unix://" + filepath.Join(r.Work, "buildkitd.sock")
	var said tail
	daemon := exec.Command("buildkitd", append([]string{"--config", file, "--root", r.State,
		"--addr", address, "--containerd-worker=false"}, r.Flags...)...)
	daemon.Stdout, daemon.Stderr = &said, &said
	// BuildKit clips the output of a step otherwise: util/progress/logs/logs.go of BuildKit
	daemon.Env = append(os.Environ(), "BUILDKIT_STEP_LOG_MAX_SIZE=-1",
		"BUILDKIT_STEP_LOG_MAX_SPEED=-1")
	if err := daemon.Start(); err != nil {
		return "", nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- daemon.Wait() }()
	stop = func() {
		_ = daemon.Process.Signal(os.Interrupt)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = daemon.Process.Kill()
			<-ended
		}
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if exec.CommandContext(ctx, "buildctl", "--addr", address, "debug",
			"workers").Run() == nil {
			return address, stop, nil
		}
		select {
		case err := <-ended:
			return "", nil, fmt.Errorf("buildkitd ended at its start: %w: %s", err, said.String())
		case <-ctx.Done():
			stop()
			return "", nil, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// buildctl builds and pushes.
func (r Run) buildctl(ctx context.Context, log *Log, o Order, plan builder.Plan, address,
	files string) (Verdict, error) {
	dir := filepath.Join(r.Work, "dockerfile")
	metadata := filepath.Join(r.Work, "metadata.json")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, "Dockerfile"),
		[]byte(o.Dockerfile), 0o644)); err != nil {
		return Verdict{}, err
	}
	args, err := r.arguments(o, address, files, dir, metadata)
	if err != nil {
		return Verdict{}, err
	}
	before := oomKills(r.Cgroup)
	cmd := exec.CommandContext(ctx, "buildctl", args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.StderrPipe()
	if err != nil {
		return Verdict{}, err
	}
	if err := cmd.Start(); err != nil {
		return Verdict{}, err
	}
	p := newProgress(log, plan)
	lines := bufio.NewReaderSize(out, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		if line = bytes.TrimRight(line, "\n"); len(line) > 0 {
			p.line(line)
		}
		if err != nil {
			break
		}
	}
	if err := cmd.Wait(); err != nil {
		text := strings.Join(p.errors, "\n")
		for _, line := range p.errors {
			log.Line("      %s", line)
		}
		if text == "" {
			return Verdict{}, fmt.Errorf("buildctl: %w", err)
		}
		return Verdict{Failure: faultOf(text, max(0, oomKills(r.Cgroup)-before))}, nil
	}
	text, err := os.ReadFile(metadata)
	if err != nil {
		return Verdict{}, err
	}
	var built map[string]any
	if err := json.Unmarshal(text, &built); err != nil {
		return Verdict{}, fmt.Errorf("%s: %w", metadata, err)
	}
	digest, _ := built["containerimage.digest"].(string)
	if digest == "" {
		return Verdict{}, fmt.Errorf("%s names no image", metadata)
	}
	v := Verdict{Digest: digest, Base: p.base()}
	v.BaseLayers = layersOf(ctx, v.Base, r.Insecure)
	return v, nil
}

// arguments are the command line of buildctl: nothing of an order is read by a shell.
func (r Run) arguments(o Order, address, files, dir, metadata string) ([]string, error) {
	args := []string{"--addr", address, "build", "--progress", "rawjson",
		"--frontend", "dockerfile.v0", "--local", "context=" + files, "--local",
		"dockerfile=" + dir, "--metadata-file", metadata,
		"--output", "type=image,oci-mediatypes=true,push=true,push-by-digest=true," +
			"rewrite-timestamp=true,name=" + o.Repository}
	if _, ok := o.Args[builder.SourceDateEpoch]; !ok {
		args = append(args, "--opt", "build-arg:"+builder.SourceDateEpoch+"=0")
	}
	for _, k := range slices.Sorted(maps.Keys(o.Args)) {
		args = append(args, "--opt", "build-arg:"+k+"="+o.Args[k])
	}
	for _, k := range slices.Sorted(maps.Keys(o.Labels)) {
		args = append(args, "--opt", "label:"+k+"="+o.Labels[k])
	}
	if r.Secrets != "" {
		names, err := r.secrets()
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			args = append(args, "--secret", "id="+name+",src="+filepath.Join(r.Secrets, name))
		}
	}
	if r.Cache != "" {
		args = append(args, "--import-cache", "type=registry,ref="+r.Cache, "--export-cache",
			"type=registry,mode=max,ignore-error=true,ref="+r.Cache)
	}
	return args, nil
}

// tail keeps the end of a program's output.
type tail struct{ text []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	if over := len(t.text) - 2048; over > 0 {
		t.text = append([]byte(nil), t.text[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string { return strings.TrimSpace(string(t.text)) }
