// Package enginetest holds every [builder.Engine] to the same behaviour. An engine's test calls
// [Run] with a way to open it over a real registry; a capability that an engine lacks is declared
// in [Harness], and the suite then asks for the right refusal instead.
package enginetest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/internal/names"
	"github.com/sluice-deploy/sluice/internal/names/namestest"
)

// Harness is an engine under test.
type Harness struct {
	Engine builder.Engine
	// Registry is where the engine may push to, by plain HTTP: the host:port of a registry, or a
	// part of one, host:port/path. It is empty.
	Registry string
	// RunBase is a base image by digest with a shell, for an engine that executes RUN. Empty says
	// that the engine does not, and must refuse.
	RunBase string
	// Slow says that a build takes seconds: the suite asks for few builds that differ in a name
	// alone, or run at the same time.
	Slow bool
}

// Run runs the suite. open gives every case an engine and a registry of its own, which end with t.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	cases := []struct {
		name string
		run  func(t *testing.T, s Harness)
	}{
		{"copy and add place files", files},
		{"the image has the configuration of the Dockerfile", configuration},
		{"arguments are filled in", arguments},
		{"dockerignore keeps files out", ignore},
		{"labels of the request win", labels},
		{"same input same digest", sameDigest},
		{"unchanged layers are reused", reuse},
		{"a tag stays unless it may move", tags},
		{"one of several builds gets the tag", tagRace},
		{"an invalid request pushes nothing", refusals},
		{"a tag is the name of a version", versions},
		{"a cancelled build returns the cause", cancelled},
		{"a missing registry is named", registryAway},
		{"log and events tell the steps", logged},
		{"run needs a sandbox", runs},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, open(t))
		})
	}
}

// file is a file of a build context that was written at some time.
func file(content string) *fstest.MapFile {
	return &fstest.MapFile{Data: []byte(content),
		Mode: 0o644}
}

func link(target string) *fstest.MapFile {
	return &fstest.MapFile{Data: []byte(target), Mode: fs.ModeSymlink | 0o777}
}

func request(s Harness, dockerfile string, files fstest.MapFS) builder.Request {
	return builder.Request{Dockerfile: []byte(dockerfile), Context: files,
		Repository: s.Registry + "/team/app"}
}

// build builds and reads the image back from the registry.
func build(t *testing.T, s Harness, r builder.Request) (builder.Result, *image) {
	t.Helper()
	res, err := s.Engine.Build(t.Context(), r)
	if err != nil {
		t.Fatalf("build: %v", err)
	}
	if want := r.Repository + "@" + res.Digest; res.Reference != want {
		t.Errorf("reference is %s, want %s", res.Reference, want)
	}
	img, err := pull(t.Context(), r.Repository, res.Digest)
	if err != nil {
		t.Fatalf("read %s back: %v", res.Reference, err)
	}
	return res, img
}

func files(t *testing.T, s Harness) {
	script := file("run")
	script.Mode = 0o755
	_, img := build(t, s, request(s, `FROM scratch
COPY a.txt /one
COPY a.txt /dir/
COPY tree /copy
COPY tree/*.conf /globbed/
COPY --chown=12:34 tree/x.conf /owned/
COPY --chmod=0640 --chown=12:34 a.txt /owned/file
WORKDIR /work
COPY a.txt b.txt ./
COPY alias /alias
ADD a.txt /added
COPY <<TEXT /inline
from the Dockerfile
TEXT
`, fstest.MapFS{
		"a.txt": file("A"), "b.txt": file("B"), "alias": link("tree/x.conf"),
		"tree/x.conf": file("X"), "tree/y.conf": file("Y"), "tree/sub/run.sh": script,
		"tree/link": link("sub/run.sh"),
	}))
	for name, want := range map[string]entry{
		"one": {kind: "file", mode: 0o644, content: "A"}, "dir": {kind: "dir",
			mode: 0o755}, "dir/a.txt": {kind: "file", mode: 0o644, content: "A"},
		"copy/x.conf": {kind: "file", mode: 0o644, content: "X"}, "copy/sub": {kind: "dir",
			mode: 0o755},
		"copy/sub/run.sh": {kind: "file", mode: 0o755, content: "run"}, "copy/link": {kind: "link",
			content: "sub/run.sh"},
		"globbed/x.conf": {kind: "file", mode: 0o644,
			content: "X"}, "globbed/y.conf": {kind: "file", mode: 0o644, content: "Y"},
		"owned": {kind: "dir", mode: 0o755, uid: 12, gid: 34}, "owned/x.conf": {kind: "file",
			mode: 0o644, uid: 12, gid: 34, content: "X"},
		"owned/file": {kind: "file", mode: 0o640, uid: 12, gid: 34, content: "A"},
		"work":       {kind: "dir", mode: 0o755}, "work/a.txt": {kind: "file", mode: 0o644,
			content: "A"}, "work/b.txt": {kind: "file", mode: 0o644, content: "B"},
		"alias": {kind: "file", mode: 0o644, content: "X"}, "added": {kind: "file", mode: 0o644,
			content: "A"},
		"inline": {kind: "file", mode: 0o644, content: "from the Dockerfile\n"},
	} {
		got, ok := img.files[name]
		if want.kind == "link" {
			got.mode = 0
		}
		if !ok || got != want {
			t.Errorf("/%s is %+v (there: %v), want %+v", name, got, ok, want)
		}
	}
	for name := range img.files {
		if strings.HasPrefix(name, "globbed/sub") || name == "tree" || name == "a.txt" {
			t.Errorf("/%s should not be in the image", name)
		}
	}
}

func configuration(t *testing.T, s Harness) {
	_, img := build(t, s, request(s, `FROM scratch
ENV ROOT=/srv NAME="a b"
ENV DATA=$ROOT/data
LABEL team=search title="$NAME"
WORKDIR $ROOT
WORKDIR app
EXPOSE 8080 53/udp
VOLUME /data
USER 1000:1000
STOPSIGNAL SIGTERM
ENTRYPOINT ["/app", "--", "$ROOT"]
CMD ["serve"]
`, nil))
	c := img.config.Config
	check := func(what string, got, want any) {
		t.Helper()
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s is %v, want %v", what, got, want)
		}
	}
	env := strings.Join(c.Env, "\n") + "\n"
	for _, want := range []string{"ROOT=/srv\n", "NAME=a b\n", "DATA=/srv/data\n"} {
		if !strings.Contains(env, want) {
			t.Errorf("environment %q lacks %q", env, want)
		}
	}
	check("label team", c.Labels["team"], "search")
	check("label title", c.Labels["title"], "a b")
	check("working directory", c.WorkingDir, "/srv/app")
	check("ports", c.ExposedPorts, map[string]struct{}{"8080/tcp": {}, "53/udp": {}})
	check("volumes", c.Volumes, map[string]struct{}{"/data": {}})
	check("user", c.User, "1000:1000")
	check("stop signal", c.StopSignal, "SIGTERM")
	check("entrypoint", c.Entrypoint, []string{"/app", "--", "$ROOT"})
	check("command", c.Cmd, []string{"serve"})
	check("system", img.config.OS, "linux")
}

func arguments(t *testing.T, s Harness) {
	r := request(s, `ARG BEFORE=outer
FROM scratch
ARG BEFORE
ARG GIVEN=default
ARG UNSET=${GIVEN:-x}
ENV E=env
ARG E=later
LABEL before=$BEFORE given=$GIVEN unset=$UNSET e=$E missing=[$MISSING]
`, nil)
	r.Args = map[string]string{"GIVEN": "a value with $(touch /x) and \"quotes\"",
		"NOBODY": "asked"}
	_, img := build(t, s, r)
	for k, want := range map[string]string{
		"before": "outer", "given": r.Args["GIVEN"], "unset": r.Args["GIVEN"], "e": "later",
		"missing": "[]",
	} {
		if got := img.config.Config.Labels[k]; got != want {
			t.Errorf("label %s is %q, want %q", k, got, want)
		}
	}
}

func ignore(t *testing.T, s Harness) {
	r := request(s, "FROM scratch\nCOPY . /all/\n", fstest.MapFS{
		".dockerignore": file("# kept out\n*.log\nsecret\n!secret/public.txt\n**/tmp\n"),
		"a.txt":         file("A"), "x.log": file("L"), "secret/key": file("K"),
		"secret/public.txt": file("P"), "d/tmp/t": file("T"), "d/e": file("E"),
	})
	_, img := build(t, s, r)
	for _, name := range []string{"all/a.txt", "all/secret/public.txt", "all/d/e"} {
		if _, ok := img.files[name]; !ok {
			t.Errorf("/%s is missing", name)
		}
	}
	for _, name := range []string{"all/x.log", "all/secret/key", "all/d/tmp", "all/d/tmp/t"} {
		if _, ok := img.files[name]; ok {
			t.Errorf("/%s is in the image, .dockerignore excludes it", name)
		}
	}
	r.Dockerfile = []byte("FROM scratch\nCOPY secret/key /key\n")
	if _, err := s.Engine.Build(t.Context(), r); err == nil {
		t.Error("copied a file that .dockerignore excludes")
	}
}

func labels(t *testing.T, s Harness) {
	r := request(s, "FROM scratch\nLABEL a=dockerfile b=dockerfile\n", nil)
	r.Labels = map[string]string{"b": "request", "io.example/json": `{"v":1,"x":"$y"}`}
	_, img := build(t, s, r)
	got := img.config.Config.Labels
	if got["a"] != "dockerfile" || got["b"] != "request" ||
		got["io.example/json"] != `{"v":1,"x":"$y"}` {
		t.Errorf("labels are %v", got)
	}
}

func sameDigest(t *testing.T, s Harness) {
	content := func(at time.Time) fstest.MapFS {
		m := fstest.MapFS{"d/a": file("A"), "d/b": file("B"), "c": file("C")}
		for _, f := range m {
			f.ModTime = at
		}
		return m
	}
	const dockerfile = "FROM scratch\nWORKDIR /w\nCOPY . /w/\nCOPY d/* /x/\nENV A=1\n"
	first, _ := build(t, s, request(s, dockerfile, content(time.Unix(1_000_000_000, 5))))
	second, _ := build(t, s, request(s, dockerfile, content(time.Unix(1_700_000_000, 0))))
	if first.Digest != second.Digest {
		t.Errorf("the same input gave %s, then %s", first.Digest, second.Digest)
	}
	r := request(s, dockerfile, content(time.Time{}))
	r.Args = map[string]string{"SOURCE_DATE_EPOCH": "1700000000"}
	dated, img := build(t, s, r)
	if dated.Digest == first.Digest || img.config.Created != "2023-11-14T22:13:20Z" {
		t.Errorf("with SOURCE_DATE_EPOCH the image says it was created at %s", img.config.Created)
	}
}

func reuse(t *testing.T, s Harness) {
	big := strings.Repeat("0123456789abcdef", 1<<14)
	const dockerfile = "FROM scratch\nCOPY big /big\nCOPY code /code\n"
	first, _ := build(t, s, request(s, dockerfile,
		fstest.MapFS{"big": file(big), "code": file("v1")}))
	second, _ := build(t, s, request(s, dockerfile,
		fstest.MapFS{"big": file(big), "code": file("v2")}))
	if len(first.Layers) != 2 || len(second.Layers) != 2 {
		t.Fatalf("builds have %d and %d layers, want 2", len(first.Layers), len(second.Layers))
	}
	if first.Layers[0] != (builder.Layer{Digest: second.Layers[0].Digest,
		Size: second.Layers[0].Size, CreatedBy: "COPY big /big"}) {
		t.Errorf("first build's layer is %+v, second's %+v", first.Layers[0], second.Layers[0])
	}
	if !second.Layers[0].Reused || second.Layers[1].Reused {
		t.Errorf("second build reused %v, %v, want the first layer only", second.Layers[0].Reused,
			second.Layers[1].Reused)
	}
	if first.Reused != 0 || second.Reused != second.Layers[0].Size ||
		second.Uploaded >= first.Uploaded {
		t.Errorf("sent %d, then %d with %d reused", first.Uploaded, second.Uploaded, second.Reused)
	}
	if second.Size <= second.Uploaded+second.Reused {
		t.Errorf("size is %d, want more than the %d of its parts without the manifest", second.Size,
			second.Uploaded+second.Reused)
	}
}

func tags(t *testing.T, s Harness) {
	r := request(s, "FROM scratch\nLABEL v=1\n", nil)
	r.Tag = "v1"
	first, _ := build(t, s, r)
	if again, _ := build(t, s, r); again.Digest != first.Digest {
		t.Errorf("the same build gave %s, then %s", first.Digest, again.Digest)
	}
	r.Dockerfile = []byte("FROM scratch\nLABEL v=2\n")
	_, err := s.Engine.Build(t.Context(), r)
	var exists *builder.TagExistsError
	if !errors.Is(err, builder.ErrTagExists) || !errors.As(err, &exists) {
		t.Fatalf("another image under the same tag: %v, want ErrTagExists", err)
	}
	if exists.Existing != first.Digest || exists.Built == first.Digest ||
		exists.Reference != r.Repository+":v1" {
		t.Errorf("error has %+v, the tag names %s", *exists, first.Digest)
	}
	if got, err := resolve(t.Context(), r.Repository, "v1"); got != first.Digest {
		t.Errorf("after the refusal the tag names %s (%v), want %s", got, err, first.Digest)
	}
	r.ReplaceTag = true
	moved, _ := build(t, s, r)
	if got, err := resolve(t.Context(), r.Repository, "v1"); got != moved.Digest ||
		moved.Digest != exists.Built {
		t.Errorf("after the replacement the tag names %s (%v), want %s", got, err, exists.Built)
	}
}

func tagRace(t *testing.T, s Harness) {
	n := 8
	if s.Slow {
		n = 3
	}
	results := make([]builder.Result, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			r := request(s, fmt.Sprintf("FROM scratch\nCOPY f /f\nLABEL v=%d\n", i),
				fstest.MapFS{"f": file(strings.Repeat("x", i))})
			r.Tag = "race"
			results[i], errs[i] = s.Engine.Build(t.Context(), r)
		})
	}
	wg.Wait()
	winner := ""
	for i, err := range errs {
		switch {
		case err == nil && winner == "":
			winner = results[i].Digest
		case err == nil:
			t.Errorf("two builds got the tag: %s and %s", winner, results[i].Digest)
		case !errors.Is(err, builder.ErrTagExists):
			t.Errorf("build %d: %v, want ErrTagExists", i, err)
		}
	}
	if got, err := resolve(t.Context(), s.Registry+"/team/app", "race"); got != winner ||
		winner == "" {
		t.Errorf("the tag names %s (%v), the winner is %q", got, err, winner)
	}
}

func refusals(t *testing.T, s Harness) {
	content := fstest.MapFS{
		"a": file("A"), "d/b": file("B"), "out": link("../../etc/passwd"),
		"abs": link("/etc/passwd"), "loop": link("loop"), ".wh.a": file("W"),
	}
	for _, c := range []struct {
		name, dockerfile string
		says             []string
	}{
		{"syntax directive", "# syntax=example.com/evil\nFROM scratch\n", []string{"line 1"}},
		{"remote add", "FROM scratch\nADD https://example.com/x /x\n", []string{"line 2"}},
		{"onbuild", "FROM scratch\nONBUILD COPY a /a\n", []string{"line 2"}},
		{"cache without run", "FROM scratch\nARG CACHE=1\nCOPY a /a\n",
			[]string{"line 2", "CACHE"}},
		{"no from", "COPY a /a\n", nil},
		{"unknown instruction", "FROM scratch\nCPOY a /a\n", []string{"line 2"}},
		{"missing file", "FROM scratch\n\nCOPY nothing /x\n", []string{"line 3", "nothing"}},
		{"parent directory", "FROM scratch\nCOPY ../a /a\n", []string{"line 2", "../a"}},
		{"parent directory inside", "FROM scratch\nCOPY d/../../a /a\n", []string{"line 2"}},
		{"link out", "FROM scratch\nCOPY out /a\n", []string{"line 2", "out"}},
		{"link out, absolute", "FROM scratch\nCOPY abs /a\n", []string{"line 2", "abs"}},
		{"link circle", "FROM scratch\nCOPY loop /a\n", []string{"line 2", "loop"}},
		{"whiteout", "FROM scratch\nCOPY .wh.a /\n", []string{"line 2", ".wh."}},
		{"several to a file", "FROM scratch\nCOPY a d/b /x\n", []string{"line 2"}},
		{"directory over file", "FROM scratch\nCOPY a /x\nCOPY d /x\n", []string{"line 3"}},
		{"port", "FROM scratch\nEXPOSE 99999\n", []string{"line 2", "99999"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := request(s, c.dockerfile, content)
			r.Tag = "refused"
			_, err := s.Engine.Build(t.Context(), r)
			if err == nil {
				t.Fatal("was built")
			}
			if !errors.Is(err, builder.ErrInvalid) {
				t.Errorf("error is %v, want ErrInvalid", err)
			}
			for _, want := range c.says {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
			if got, err := resolve(t.Context(), r.Repository, "refused"); err == nil {
				t.Errorf("the tag names %s after a refusal", got)
			}
		})
	}
	r := request(s, "FROM scratch\n", nil)
	for _, bad := range []string{"", "UPPER", s.Registry + "/with space", s.Registry + "/a:tag"} {
		r.Repository = bad
		if _, err := s.Engine.Build(t.Context(), r); !errors.Is(err, builder.ErrInvalid) {
			t.Errorf("repository %q: %v, want ErrInvalid", bad, err)
		}
	}
	r.Repository, r.Tag = s.Registry+"/a", "not a tag"
	if _, err := s.Engine.Build(t.Context(), r); !errors.Is(err, builder.ErrInvalid) {
		t.Errorf("a tag with spaces: %v, want ErrInvalid", err)
	}
}

func versions(t *testing.T, s Harness) {
	var built atomic.Int64
	namestest.Run(t, namestest.Version, func(name string) error {
		if s.Slow && names.Version(name) == nil && built.Add(1) > 1 {
			return nil
		}
		r := request(s, "FROM scratch\nLABEL a=b\n", nil)
		r.Repository, r.Tag = s.Registry+"/versions", name
		_, err := s.Engine.Build(t.Context(), r)
		if err != nil && !errors.Is(err, builder.ErrInvalid) {
			t.Errorf("tag %.80q: %v, want ErrInvalid", name, err)
		}
		return err
	}, "empty") // no tag
}

func cancelled(t *testing.T, s Harness) {
	cause := errors.New("the caller's reason")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	r := request(s, "FROM scratch\nCOPY a /a\n", fstest.MapFS{"a": file("A")})
	r.Tag = "cancelled"
	if _, err := s.Engine.Build(ctx, r); !errors.Is(err, cause) {
		t.Errorf("build with a cancelled context: got %v, want the context's cause", err)
	}
	ctx, cancel = context.WithCancelCause(t.Context())
	r.Events = func(e builder.Event) { // in the middle of the build, at its first step
		cancel(cause)
	}
	if _, err := s.Engine.Build(ctx, r); !errors.Is(err, cause) {
		t.Errorf("build whose context ends at a step: got %v, want the context's cause", err)
	}
	if got, err := resolve(t.Context(), r.Repository, "cancelled"); err == nil {
		t.Errorf("the tag names %s after a cancelled build", got)
	}
}

func registryAway(t *testing.T, s Harness) {
	r := request(s, "FROM scratch\nLABEL a=b\n", nil)
	r.Repository = "127.0.0.1:1/app" // nothing listens on port 1
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := s.Engine.Build(ctx, r)
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("error %v does not name the registry", err)
	}
	if errors.Is(err, builder.ErrInvalid) {
		t.Errorf("error %v says that building again does not help", err)
	}
}

func logged(t *testing.T, s Harness) {
	var out strings.Builder
	r := request(s, "FROM scratch\nARG TOKEN\nCOPY a /a\n", fstest.MapFS{"a": file("A")})
	r.Args, r.Log = map[string]string{"TOKEN": "hunter2-value"}, &out
	var steps []string
	var last builder.Event
	r.Events = func(e builder.Event) {
		if last = e; e.Kind == builder.EventStep {
			steps = append(steps, fmt.Sprintf("%d/%d line %d %s", e.Step, e.Steps, e.Line, e.Text))
		}
	}
	res, _ := build(t, s, r)
	if got, want := strings.Join(steps,
		"; "), "1/3 line 1 FROM scratch; 2/3 line 2 ARG TOKEN; 3/3 line 3 COPY a /a"; got != want {
		t.Errorf("steps are %s, want %s", got, want)
	}
	if last.Kind != builder.EventDone || !strings.Contains(last.Text, res.Digest) {
		t.Errorf("last event is %+v", last)
	}
	for _, want := range []string{"FROM scratch", "COPY a /a", res.Digest} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("log does not say %q:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "hunter2") {
		t.Errorf("log shows the value of a build argument:\n%s", out.String())
	}
}

func runs(t *testing.T, s Harness) {
	if s.RunBase == "" {
		_, err := s.Engine.Build(t.Context(), request(s, "FROM scratch\n\nRUN echo\n", nil))
		var unsupported *builder.UnsupportedError
		if !errors.Is(err, builder.ErrUnsupported) || !errors.As(err, &unsupported) {
			t.Fatalf("RUN: %v, want ErrUnsupported", err)
		}
		if unsupported.Line != 3 || unsupported.What != "RUN" || unsupported.Hint == "" {
			t.Errorf("error has %+v", *unsupported)
		}
		return
	}
	r := request(s, "FROM "+s.RunBase+"\nARG CACHE=1\nRUN echo $CACHE >/made\nCOPY a /a\n",
		fstest.MapFS{"a": file("A")})
	r.Args = map[string]string{"CACHE": "7"}
	if _, img := build(t, s, r); img.files["made"].content != "7\n" {
		t.Errorf("/made is %+v, want 7", img.files["made"])
	}
}
