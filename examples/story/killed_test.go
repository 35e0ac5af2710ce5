package story_test

import (
	"net/http"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/story"
)

func atoi(t *testing.T, s string) int {
	n, err := strconv.Atoi(s)
	require.NoError(t, err)
	return n
}

func endProcess(t *testing.T, pid int) { require.NoError(t, syscall.Kill(pid, syscall.SIGKILL)) }

// TestKilledInTheMiddle kills the server at many moments of one kind of request, from the first to
// after the last.
func TestKilledInTheMiddle(t *testing.T) {
	t.Parallel()
	s := newServer(t, "127.63.0.0/24")
	binary, err := story.Compile(t.Context(), examples, "v1", t.TempDir())
	require.NoError(t, err)
	archive, err := story.Pack(binary, filepath.Join(examples, "hello", "web", "envs"))
	require.NoError(t, err)
	require.NoError(t, s.call(http.MethodPut, "/sources/hello_web", archive, nil))
	buildOf := func(version string) map[string]any {
		return map[string]any{"cluster": "hello_web", "version": version, "template": "go-static",
			"source": "hello_web", "actor": "ann"}
	}
	ended := func(id string) (b build) {
		require.Eventually(t, func() bool {
			b = get[build](s, "/builds/"+id)
			return b.State == "succeeded" || b.State == "failed"
		}, time.Minute, 10*time.Millisecond)
		return b
	}
	promotion := func(environment string) map[string]string {
		return map[string]string{"cluster": "hello_web", "version": "v1",
			"environment": environment, "expect": "any", "actor": "ann"}
	}
	task := func(name string) map[string]string {
		return map[string]string{"task": name, "cluster": "hello_web", "version": "v1",
			"actor": "bob"}
	}
	var first build
	require.NoError(t, s.call(http.MethodPost, "/builds", buildOf("v1"), &first))
	require.Equal(t, "succeeded", ended(first.ID).State)
	for _, environment := range []string{"test", "sandbox", "production", "stable"} {
		require.NoError(t, s.call(http.MethodPost, "/promotions", promotion(environment), nil))
	}

	// each kills the server at growing times after the request was sent, until the answer comes
	// before the kill.
	each := func(name string, request func(n int) error, after func(n int, answered bool)) {
		pause := 0 * time.Millisecond
		for n := 0; ; n++ {
			before := s.state()
			answer := make(chan error, 1) // one answer
			go func() { answer <- request(n) }()
			select {
			case err := <-answer:
				require.NoError(t, err)
				s.kill()
				s.start()
				s.inOrder()
				after(n, true)
				t.Logf("%s: killed %d times before the answer", name, n)
				return
			case <-time.After(pause):
			}
			s.kill()
			answered := <-answer == nil
			s.start()
			now := s.state()
			require.Equal(t, before.versions, now.versions[:len(before.versions)])
			require.Equal(t, before.journal, now.journal[:len(before.journal)])
			s.inOrder()
			after(n, answered)
			pause += 10*time.Millisecond + pause/2
		}
	}

	versionName := func(n int) string { return "v1-" + strconv.Itoa(n) }
	each("build", func(n int) error {
		var b build
		if err := s.call(http.MethodPost, "/builds", buildOf(versionName(n)), &b); err != nil {
			return err
		}
		for b.State != "succeeded" {
			if err := s.call(http.MethodGet, "/builds/"+b.ID, nil, &b); err != nil {
				return err
			}
		}
		return nil
	}, func(n int, answered bool) {
		var again build
		require.NoError(t, s.call(http.MethodPost, "/builds", buildOf(versionName(n)), &again))
		require.Equal(t, "succeeded", ended(again.ID).State, again.Error)
	})

	promote := func(n int) error {
		next := promotion("test")
		next["version"] = []string{versionName(0), "v1"}[n%2]
		return s.call(http.MethodPost, "/promotions", next, nil)
	}
	each("promotion", promote, func(n int, _ bool) {
		require.NoError(t, promote(n))
		s.inOrder()
	})

	vips := map[string]string{}
	taskName := func(n int) string { return "task-" + strconv.Itoa(n) }
	each("start of a task", func(n int) error {
		return s.call(http.MethodPost, "/tasks", task(taskName(n)), nil)
	}, func(n int, answered bool) {
		var l lease
		require.NoError(t, s.call(http.MethodPost, "/tasks", task(taskName(n)), &l))
		require.Equal(t, "leased", l.State)
		require.Len(t, l.Instances, 1)
		vips[l.Task] = l.VIP
		for _, l := range get[[]lease](s, "/tasks") {
			if l.State == "leased" {
				require.Equal(t, vips[l.Task], l.VIP, "every task keeps its VIP")
			}
		}
	})

	for len(vips) < 14 { // an end may take longer than a start, on a busy machine
		var l lease
		require.NoError(t, s.call(http.MethodPost, "/tasks", task(taskName(len(vips))), &l))
		vips[l.Task] = l.VIP
	}
	last := len(vips)
	each("end of a task", func(n int) error {
		return s.call(http.MethodDelete, "/tasks/"+taskName(n)+"?actor=bob", nil, nil)
	}, func(n int, _ bool) {
		require.Less(t, n, last, "every request was cut off")
		var l lease
		require.NoError(t, s.call(http.MethodDelete, "/tasks/"+taskName(n)+"?actor=bob", nil, &l))
		require.NotEqual(t, "leased", l.State)
		s.inOrder()
	})
}
