package builds_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/builds"
	"github.com/sluice-deploy/sluice/builder/builds/buildstest"
	"github.com/sluice-deploy/sluice/builder/source"
)

func TestMemory(t *testing.T) {
	t.Parallel()
	buildstest.Run(t, func(*testing.T) buildstest.Harness {
		m := builds.NewMemory()
		return buildstest.Harness{Journal: m, Logs: m, Owners: m}
	})
}

// engine makes a builder.Engine of a function.
type engine func(ctx context.Context, r builder.Request) (builder.Result, error)

func (e engine) Build(ctx context.Context, r builder.Request) (builder.Result, error) {
	return e(ctx, r)
}

func succeeds(_ context.Context, r builder.Request) (builder.Result, error) {
	io.WriteString(r.Log, "step one\nstep two")
	return builder.Result{Digest: "sha256:1", Layers: []builder.Layer{}}, nil
}

// hangs builds until its context ends; begun gets each build.
func hangs(begun chan<- string) engine {
	return func(ctx context.Context, r builder.Request) (builder.Result, error) {
		io.WriteString(r.Log, "begun\n")
		begun <- r.Tag
		<-ctx.Done()
		return builder.Result{}, context.Cause(ctx)
	}
}

func open(t *testing.T, m *builds.Memory, owner string, e engine,
	change ...func(*builds.Config)) *builds.Builds {
	t.Helper()
	c := builds.Config{Journal: m, Logs: m, Owners: m, Owner: owner, Engine: e,
		Poll: time.Millisecond}
	for _, f := range change {
		f(&c)
	}
	b, err := builds.New(c)
	require.NoError(t, err)
	return b
}

// run runs b until the returned function is called, or the test ends.
func run(t *testing.T, b *builds.Builds) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("run: got %v, want the cause of its context", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func order(id string) builds.Order {
	o := buildstest.Order(id)
	o.Tag = id
	return o
}

// wait returns the build once it has ended, and fails the test after a minute.
func wait(t *testing.T, b *builds.Builds, id string) builds.Build {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got, err := b.Wait(ctx, id)
	require.NoError(t, err)
	return got
}

// logOf reads the log of an ended build in parts.
func logOf(t *testing.T, b *builds.Builds, id string) (string, builds.LogState) {
	t.Helper()
	var text strings.Builder
	for offset := int64(0); ; {
		p, err := b.Log(t.Context(), id, offset)
		require.NoError(t, err)
		text.Write(p.Data)
		if offset = p.Next; p.Ended {
			require.EqualValues(t, text.Len(), p.State.Bytes)
			return text.String(), p.State
		}
	}
}

func TestBuild(t *testing.T) {
	t.Parallel()
	m := builds.NewMemory()
	asks, works := open(t, m, "", nil), open(t, m, "one", succeeds)

	ctx, goAway := context.WithCancel(t.Context())
	got, err := asks.Submit(ctx, order("a"))
	require.NoError(t, err)
	require.Equal(t, builds.StateQueued, got.State)
	goAway() // a caller that goes away cancels nothing
	run(t, works)

	got = wait(t, asks, "a")
	require.Equal(t, builds.StateSucceeded, got.State)
	require.Equal(t, "sha256:1", got.Result.Digest)
	entries, err := asks.Follow(t.Context(), "a", 0)
	require.NoError(t, err)
	var kinds []builds.Kind
	for _, e := range entries {
		kinds = append(kinds, e.Kind)
	}
	require.Equal(t, []builds.Kind{builds.Submitted, builds.Started, builds.Succeeded}, kinds)
	entries, err = asks.Follow(t.Context(), "a", entries[1].Seq)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	text, state := logOf(t, asks, "a")
	require.Equal(t, "build a, attempt 1 by one\nstep one\nstep two\n", text)
	require.Equal(t, builds.Complete, state.Verdict)
	p, err := asks.Log(t.Context(), "a", 6)
	require.NoError(t, err)
	require.Equal(t, text[6:], string(p.Data))
	_, err = asks.Log(t.Context(), "a", 1000)
	require.ErrorIs(t, err, builder.ErrInvalid)
}

func TestSubmitTwice(t *testing.T) {
	t.Parallel()
	b := open(t, builds.NewMemory(), "", nil)
	first, err := b.Submit(t.Context(), order("a"))
	require.NoError(t, err)
	again := order("a")
	again.Actor = "bob"
	second, err := b.Submit(t.Context(), again)
	require.NoError(t, err)
	require.Equal(t, first, second)
	for name, change := range map[string]func(*builds.Order){
		"dockerfile": func(o *builds.Order) { o.Dockerfile += "COPY b /b\n" },
		"argument":   func(o *builds.Order) { o.Args = map[string]string{"CACHE": "2"} },
		"group":      func(o *builds.Order) { o.Group = "g" },
		"source": func(o *builds.Order) {
			o.Source.Rsync = &source.Rsync{Host: "h", Module: "m"}
		},
	} {
		o := order("a")
		change(&o)
		_, err := b.Submit(t.Context(), o)
		require.ErrorIs(t, err, builds.ErrConflict, name)
	}
	list, err := b.List(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 1)
}

func TestManySubmitOneBuild(t *testing.T) {
	t.Parallel()
	m := builds.NewMemory()
	var mu sync.Mutex
	built := map[string]int{}
	counts := func(_ context.Context, r builder.Request) (builder.Result, error) {
		mu.Lock()
		defer mu.Unlock()
		built[r.Tag]++
		return builder.Result{Digest: "sha256:1"}, nil
	}
	var all []*builds.Builds
	for i := range 3 {
		b := open(t, m, fmt.Sprint("owner", i), counts)
		run(t, b)
		all = append(all, b)
	}
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			if _, err := all[i%3].Submit(t.Context(), order(fmt.Sprint("b", i%10))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i := range 10 {
		require.Equal(t, builds.StateSucceeded, wait(t, all[0], fmt.Sprint("b", i)).State)
	}
	mu.Lock()
	defer mu.Unlock()
	for id, n := range built {
		require.Equal(t, 1, n, "build %s was carried out %d times", id, n)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	m := builds.NewMemory()
	begun := make(chan string, 1)
	asks := open(t, m, "", nil)
	run(t, open(t, m, "one", hangs(begun), func(c *builds.Config) { c.Builders = 1 }))
	for _, id := range []string{"runs", "waits"} {
		_, err := asks.Submit(t.Context(), order(id))
		require.NoError(t, err)
	}
	<-begun
	got, err := asks.Cancel(t.Context(), "waits", "bob", "not needed")
	require.NoError(t, err)
	require.Equal(t, builds.StateCancelled, got.State)
	_, err = asks.Cancel(t.Context(), "runs", "bob", "wrong branch")
	require.NoError(t, err)
	got = wait(t, asks, "runs")
	require.Equal(t, builds.StateCancelled, got.State)
	require.Equal(t, "bob", got.By)
	require.Equal(t, "wrong branch", got.Reason)
	got, err = asks.Cancel(t.Context(), "runs", "carl", "again")
	require.NoError(t, err)
	require.Equal(t, "bob", got.By)
	_, err = asks.Cancel(t.Context(), "none", "bob", "why")
	require.ErrorIs(t, err, builder.ErrNotFound)
	_, err = asks.Cancel(t.Context(), "runs", "bob", "")
	require.ErrorIs(t, err, builder.ErrInvalid)
}

func TestStoppedProcess(t *testing.T) {
	t.Parallel()
	m := builds.NewMemory()
	begun := make(chan string, 1)
	first := open(t, m, "one", hangs(begun))
	stop := run(t, first)
	_, err := first.Submit(t.Context(), order("a"))
	require.NoError(t, err)
	<-begun
	stop()
	got, err := first.Get(t.Context(), "a")
	require.NoError(t, err)
	require.Equal(t, builds.StateQueued, got.State)
	second := open(t, m, "two", succeeds)
	run(t, second)
	got = wait(t, second, "a")
	require.Equal(t, builds.StateSucceeded, got.State)
	require.Equal(t, "two", got.Owner)
	require.Equal(t, 2, got.Tries)
	text, state := logOf(t, second, "a")
	require.Equal(t, builds.Complete, state.Verdict)
	require.Contains(t, text, "attempt 1 by one\nbegun\n")
	require.Contains(t, text, "attempt 2 by two\nstep one\n")
}

func TestRetry(t *testing.T) {
	t.Parallel()
	b := open(t, builds.NewMemory(), "one", nil, func(c *builds.Config) {
		n := 0
		c.Engine = engine(func(ctx context.Context, r builder.Request) (builder.Result, error) {
			if n++; n == 1 {
				return builder.Result{}, errors.New("the disk is full")
			}
			return builder.Result{}, fmt.Errorf("build: %w", &builder.DockerfileError{Line: 2,
				Instruction: "COPY a /a", Err: errors.New("no such file")})
		})
	})
	run(t, b)
	o := order("a")
	o.Attempts = 5
	_, err := b.Submit(t.Context(), o)
	require.NoError(t, err)
	got := wait(t, b, "a")
	require.Equal(t, builds.StateFailed, got.State)
	require.Equal(t, 2, got.Tries, "a failure of the request is not tried again")
	require.Equal(t, builder.ReasonDockerfile, got.Failure.Reason)
	require.Equal(t, 2, got.Failure.Line)
	require.Equal(t, "COPY a /a", got.Failure.Instruction)
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	b := open(t, builds.NewMemory(), "one", hangs(make(chan string, 1)))
	run(t, b)
	o := order("a")
	o.Deadline = time.Millisecond
	_, err := b.Submit(t.Context(), o)
	require.NoError(t, err)
	got := wait(t, b, "a")
	require.Equal(t, builds.StateFailed, got.State)
	require.Equal(t, builder.ReasonDeadline, got.Failure.Reason)
	require.Contains(t, got.Failure.Message, "longer than 1ms")
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	const secret = "pa ss/w+rd?-0123456789"
	m := builds.NewMemory()
	spills := func(_ context.Context, r builder.Request) (builder.Result, error) {
		for lead := range 4 {
			for _, text := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret),
				base64.StdEncoding.EncodeToString([]byte(strings.Repeat("u", lead) + secret +
					"!"))} {
				io.WriteString(r.Log, "in "+text[:5])
				io.WriteString(r.Log, text[5:]+" the log\n")
			}
		}
		io.WriteString(r.Log, strings.Repeat("x", 70<<10)+secret[:9])
		io.WriteString(r.Log, secret[9:])
		return builder.Result{}, &builder.Failure{Reason: builder.ReasonCommand, Message: secret,
			Hint: secret, Evidence: []string{secret}}
	}
	b := open(t, m, "one", spills, func(c *builds.Config) {
		c.Secrets = func(context.Context, string) (string, error) { return secret, nil }
		c.Context = func(_ context.Context, r builds.ContextRequest) (builds.Context, error) {
			require.Equal(t, map[string]string{"token": secret}, r.Secrets)
			return builds.Context{}, nil
		}
	})
	run(t, b)
	o := order("a")
	o.Secrets = []string{"token"}
	_, err := b.Submit(t.Context(), o)
	require.NoError(t, err)
	got := wait(t, b, "a")
	require.Equal(t, builds.StateFailed, got.State)
	text, _ := logOf(t, b, "a")
	entries, err := m.Read(t.Context(), 0)
	require.NoError(t, err)
	var kept strings.Builder
	for _, e := range entries {
		fmt.Fprintf(&kept, "%+v %+v %+v\n", e, e.Failure, e.Order)
	}
	require.Contains(t, text, mask)
	core := base64.StdEncoding.EncodeToString([]byte(secret))[4:20]
	for _, leak := range []string{secret, secret[:9], url.QueryEscape(secret),
		url.PathEscape(secret), core, "0123456789"} {
		require.NotContains(t, text, leak)
		require.NotContains(t, kept.String(), leak)
	}
}

const mask = "***"

func TestLongLog(t *testing.T) {
	t.Parallel()
	b := open(t, builds.NewMemory(), "one", func(_ context.Context, r builder.Request) (
		builder.Result, error) {
		for range 100 {
			io.WriteString(r.Log, "0123456789\n")
		}
		return builder.Result{Digest: "sha256:1"}, nil
	}, func(c *builds.Config) { c.MaxLog = 100 })
	run(t, b)
	_, err := b.Submit(t.Context(), order("a"))
	require.NoError(t, err)
	require.Equal(t, builds.StateSucceeded, wait(t, b, "a").State)
	text, state := logOf(t, b, "a")
	require.Len(t, text, 100)
	first := int64(len("build a, attempt 1 by one\n"))
	require.Equal(t, builds.LogState{Bytes: 100, Lost: first + 1100 - 100,
		Verdict: builds.Truncated}, state)
}

// deafLogs fails for the data that deaf picks.
type deafLogs struct {
	*builds.Memory
	deaf func(data []byte) bool
}

func (l deafLogs) AppendLog(ctx context.Context, build string, offset int64, data []byte) error {
	if l.deaf(data) {
		return errors.New("the store is away")
	}
	return l.Memory.AppendLog(ctx, build, offset, data)
}

func TestLogGap(t *testing.T) {
	t.Parallel()
	m := builds.NewMemory()
	b := open(t, m, "one", succeeds, func(c *builds.Config) {
		c.Logs = deafLogs{m, func(data []byte) bool {
			return strings.Contains(string(data), "one\n") &&
				strings.HasPrefix(string(data), "step")
		}}
	})
	run(t, b)
	_, err := b.Submit(t.Context(), order("a"))
	require.NoError(t, err)
	got := wait(t, b, "a")
	require.Equal(t, builds.StateSucceeded, got.State, "a build does not fail for its log")
	require.Equal(t, builds.Gap, got.Log.Verdict)
	require.EqualValues(t, len("step one\nstep two\n"), got.Log.Lost)
}

func TestOrderValidate(t *testing.T) {
	t.Parallel()
	good := []func(*builds.Order){
		func(*builds.Order) {},
		func(o *builds.Order) { o.Group, o.Policy = "g", builds.LatestOnly },
		func(o *builds.Order) {
			o.Source.Rsync = &source.Rsync{Host: "10.0.0.1", Module: "root", Path: "root/output/"}
		},
		func(o *builds.Order) {
			o.Source.Git = &source.Git{URL: "https://example.com/a.git",
				Commit: strings.Repeat("a", 40)}
		},
		func(o *builds.Order) {
			o.Source.Archive = &source.Archive{URL: "https://example.com/a.tgz",
				SHA256: strings.Repeat("a", 64)}
		},
		func(o *builds.Order) {
			o.Source.Artifact = &source.Artifact{Reference: "r.example.com/a@sha256:" +
				strings.Repeat("a", 64)}
		},
	}
	for i, change := range good {
		o := order("a")
		change(&o)
		require.NoError(t, o.Validate(), "good order %d", i)
	}
	for want, change := range map[string]func(*builds.Order){
		"order: id: ":       func(o *builds.Order) { o.ID = "../a" },
		"order: actor: ":    func(o *builds.Order) { o.Actor = "" },
		"order: team: ":     func(o *builds.Order) { o.Team = "a\nb" },
		"order: policy: ":   func(o *builds.Order) { o.Group, o.Policy = "g", "newest" },
		"order: group: ":    func(o *builds.Order) { o.Policy = builds.Serial },
		"order: deadline: ": func(o *builds.Order) { o.Deadline = -1 },
		"order: attempts: ": func(o *builds.Order) { o.Attempts = 11 },
		"order: secrets: ":  func(o *builds.Order) { o.Secrets = []string{"a b"} },
		"order: size: ": func(o *builds.Order) {
			o.Labels = map[string]string{"a": strings.Repeat("x", 2<<20)}
		},
		"tag: ": func(o *builds.Order) { o.Tag = "a+b" },
		"rsync.host: \"-e\"": func(o *builds.Order) {
			o.Source.Rsync = &source.Rsync{Host: "-e", Module: "m"}
		},
		"rsync.port: ": func(o *builds.Order) {
			o.Source.Rsync = &source.Rsync{Host: "h", Port: 65536, Module: "m"}
		},
		"rsync.module: ": func(o *builds.Order) {
			o.Source.Rsync = &source.Rsync{Host: "h", Module: "a/b"}
		},
		"rsync.path: ": func(o *builds.Order) {
			o.Source.Rsync = &source.Rsync{Host: "h", Module: "m", Path: "a/../../b"}
		},
		"git.url: \"https://***@example.com/a\"": func(o *builds.Order) {
			o.Source.Git = &source.Git{URL: "https://ann:word@example.com/a",
				Commit: strings.Repeat("a", 40)}
		},
		"git.commit: ": func(o *builds.Order) {
			o.Source.Git = &source.Git{URL: "https://example.com/a", Commit: "main"}
		},
		"archive.sha256: ": func(o *builds.Order) {
			o.Source.Archive = &source.Archive{URL: "https://example.com/a"}
		},
		"artifact.reference: ": func(o *builds.Order) {
			o.Source.Artifact = &source.Artifact{Reference: "r.example.com/a:latest"}
		},
		"source: 2 are set": func(o *builds.Order) {
			o.Source.Rsync = &source.Rsync{Host: "h", Module: "m"}
			o.Source.Git = &source.Git{URL: "https://example.com/a", Commit: strings.Repeat("a",
				40)}
		},
	} {
		o := order("a")
		change(&o)
		err := o.Validate()
		require.ErrorIs(t, err, builder.ErrInvalid, want)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "ann:word")
	}
}

func TestNew(t *testing.T) {
	t.Parallel()
	_, err := builds.New(builds.Config{Owner: "a/b", Builders: -1, MaxLog: -1, Poll: -1,
		KeepEnded: -1, KeepFor: -1})
	require.ErrorIs(t, err, builder.ErrInvalid)
	for _, field := range []string{"Journal", "Logs", "Owner", "Builders", "MaxLog", "Poll",
		"KeepEnded", "KeepFor"} {
		require.ErrorContains(t, err, "builds: Config."+field+": ")
	}
	m := builds.NewMemory()
	b := open(t, m, "", nil)
	require.ErrorIs(t, b.Run(t.Context()), builder.ErrInvalid)
}

func TestCancelledCalls(t *testing.T) {
	t.Parallel()
	b := open(t, builds.NewMemory(), "", nil)
	_, err := b.Submit(t.Context(), order("a"))
	require.NoError(t, err)
	cause := errors.New("the caller's reason")
	ctx, cancel := context.WithCancelCause(t.Context())
	waits := make(chan error, 2)
	go func() { _, err := b.Follow(ctx, "a", 1); waits <- err }()
	go func() { _, err := b.Log(ctx, "a", 0); waits <- err }()
	cancel(cause)
	require.ErrorIs(t, <-waits, cause)
	require.ErrorIs(t, <-waits, cause)
	_, err = b.Submit(ctx, order("b"))
	require.ErrorIs(t, err, cause)
	_, err = b.Cancel(ctx, "a", "bob", "why")
	require.ErrorIs(t, err, cause)
	_, err = b.Get(t.Context(), "b")
	require.ErrorIs(t, err, builder.ErrNotFound)
}
