package edge_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/server/edge"
	"github.com/sluice-deploy/sluice/examples/server/servertest"
	"github.com/sluice-deploy/sluice/internal/testbed"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) { servertest.Main(m) }

// production is the sample tree that the server embeds.
func production() fs.FS { return os.DirFS(filepath.Join("..", "nginx")) }

// answering is a tree that answers with the text on port 80.
func answering(text string) fstest.MapFS {
	return fstest.MapFS{
		"nginx.conf": {Data: []byte("events {}\nhttp {\n    include sites/*.conf;\n}\n")},
		"sites/one.conf": {Data: []byte("server {\n    listen 80;\n    location / { return 200 \"" +
			text + "\"; }\n}\n")},
	}
}

func open(t *testing.T, dir string, port int, tree fs.FS) *edge.Edge {
	t.Helper()
	return openBoth(t, dir, port, testbed.Port(t), tree)
}

// openBoth opens an Nginx that listens for HTTP and for TLS.
func openBoth(t *testing.T, dir string, port, secure int, tree fs.FS) *edge.Edge {
	t.Helper()
	servertest.Sweep(t, dir)
	e, err := edge.Open(t.Context(), edge.Config{Dir: dir, Tree: tree,
		Ports: map[int]int{80: port, 443: secure}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, edge.Stop(context.Background(), dir)) })
	return e
}

func ask(port int) string {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(response.Body); err != nil {
		return err.Error()
	}
	return body.String()
}

func pid(t *testing.T, dir string) int {
	data, err := os.ReadFile(filepath.Join(dir, "nginx.pid"))
	require.NoError(t, err)
	n, err := strconv.Atoi(strings.TrimSpace(string(data)))
	require.NoError(t, err)
	return n
}

// processes returns the descriptors of processes that have a file below dir open.
func processes(dir string) (found []string) {
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*") // the pattern is well formed
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil && strings.HasPrefix(target, dir+"/") {
			found = append(found, fd)
		}
	}
	return found
}

func TestMissingProgramNamesThePackages(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "nginx")
	_, err := edge.Open(t.Context(), edge.Config{Dir: dir, Tree: production(),
		Ports: map[int]int{80: 8880}, Program: "/none/nginx"})
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, "/none/nginx")
	require.ErrorContains(t, err, "apt-get install --no-install-recommends nginx "+
		"libnginx-mod-http-lua")
	require.NoDirExists(t, dir, "nothing is left")
}

func TestMissingModuleNamesThePackages(t *testing.T) {
	edge.SetModules(t, "/none/ngx_http_lua_module.so") // not parallel: for the whole process
	_, err := edge.Open(t.Context(), edge.Config{Dir: t.TempDir(), Tree: production(),
		Ports: map[int]int{80: 8880, 443: 8843}})
	require.ErrorContains(t, err, "/none/ngx_http_lua_module.so")
	require.ErrorContains(t, err, "apt-get install --no-install-recommends nginx "+
		"libnginx-mod-http-lua")
}

func TestABadTreeLeavesTheOldOneServing(t *testing.T) {
	t.Parallel()
	dir, port := t.TempDir(), testbed.Port(t)
	e := open(t, dir, port, answering("first"))
	require.NoError(t, e.Start(t.Context()))
	master := pid(t, dir)
	for name, tc := range map[string]struct{ text, want string }{
		"not closed": {"server {\n    listen 80;\n", "expecting \"}\""},
		"no such directive": {"server {\n    listen 80;\n    no_such_thing on;\n}\n",
			"no_such_thing"},
		"missing include": {"include missing.conf;\n", "missing.conf"},
	} {
		tree := answering("second")
		tree["sites/one.conf"] = &fstest.MapFile{Data: []byte(tc.text)}
		_, err := edge.Open(t.Context(), edge.Config{Dir: dir, Tree: tree,
			Ports: map[int]int{80: port, 443: testbed.Port(t)}})
		require.ErrorContains(t, err, "sites/one.conf:", "%s: the line is named", name)
		require.ErrorContains(t, err, tc.want, name)
		require.Equal(t, "first", ask(port))
		require.NoError(t, e.Ensure(t.Context()))
		require.Equal(t, master, pid(t, dir))
	}
	require.NoError(t, e.Start(t.Context()), "the configuration on disk is whole")
	require.Equal(t, "first", ask(port))
}

func TestStartTakesOverWhatRuns(t *testing.T) {
	t.Parallel()
	dir, port := t.TempDir(), testbed.Port(t)
	require.NoError(t, open(t, dir, port, answering("first")).Start(t.Context()))
	master := pid(t, dir)
	second := open(t, dir, port, answering("second"))
	require.Equal(t, "first", ask(port), "until Start")
	require.NoError(t, second.Start(t.Context()))
	require.Equal(t, "second", ask(port), "Start returned, so the new one serves")
	require.Equal(t, master, pid(t, dir), "a reload, no second Nginx")

	require.NoError(t, edge.Stop(t.Context(), dir))
	require.Empty(t, processes(dir))
	require.NoError(t, edge.Stop(t.Context(), dir), "what does not run is stopped")
	require.NoError(t, edge.Stop(t.Context(), filepath.Join(dir, "none")))
	require.NoError(t, second.Ensure(t.Context()))
	require.Equal(t, "second", ask(port))
}

func TestEnsureEndsWorkersWithoutMaster(t *testing.T) {
	t.Parallel()
	dir, port := t.TempDir(), testbed.Port(t)
	e := open(t, dir, port, answering("first"))
	require.NoError(t, e.Start(t.Context()))
	for range 5 {
		master := pid(t, dir)
		require.NoError(t, syscall.Kill(master, syscall.SIGKILL))
		for pid(t, dir) == master { // until the kill is seen there is nothing to do
			require.NoError(t, e.Ensure(t.Context()))
		}
		require.Equal(t, "first", ask(port))
	}

	require.NoError(t, syscall.Kill(pid(t, dir), syscall.SIGKILL))
	require.NoError(t, edge.Stop(t.Context(), dir))
	require.Empty(t, processes(dir), "its workers, too")
}

func TestStopOfAHungNginx(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := open(t, dir, testbed.Port(t), answering("first"))
	require.NoError(t, e.Start(t.Context()))
	require.NoError(t, syscall.Kill(pid(t, dir), syscall.SIGSTOP))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, edge.Stop(ctx, dir))
	require.Empty(t, processes(dir))
}

func TestStartSaysWhyItCannot(t *testing.T) {
	t.Parallel()
	dir, port := t.TempDir(), testbed.Port(t)
	l, err := net.Listen("tcp4", "0.0.0.0:"+strconv.Itoa(port))
	require.NoError(t, err)
	defer l.Close()
	err = open(t, dir, port, answering("first")).Start(t.Context())
	require.ErrorContains(t, err, "Address already in use")
	require.ErrorContains(t, err, strconv.Itoa(port))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = edge.Open(ctx, edge.Config{Dir: dir, Tree: answering("x"),
		Ports: map[int]int{80: port, 443: testbed.Port(t)}})
	require.ErrorIs(t, err, context.Canceled)
}

// TestClustersAreInLowerCase opens a tree whose upstream has capitals, which its cluster has not.
func TestClustersAreInLowerCase(t *testing.T) {
	t.Parallel()
	e, err := edge.Open(t.Context(), edge.Config{
		Dir: t.TempDir(), Ports: map[int]int{80: 8880},
		Tree: fstest.MapFS{"nginx.conf": {Data: []byte(`events {}
http {
    upstream Hello_Web { server 10.1.1.1:80; }
    upstream api { server 10.1.1.2:80; }
    server { listen 80; location / { proxy_pass http://Hello_Web; } }
}
`)}},
	})
	require.NoError(t, err)
	require.Equal(t, []string{"api", "hello_web"}, e.Clusters)
}

// TestTransformOfTheSampleTree compares the tree that serves with the files in testdata: run with
// -update to write them again, and read the difference.
func TestTransformOfTheSampleTree(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e, err := edge.Open(t.Context(), edge.Config{Dir: dir, Tree: production(),
		Ports: map[int]int{80: 8880, 443: 8843}})
	require.NoError(t, err)
	require.Equal(t, []string{"greet_api", "hello_web"}, e.Clusters)
	golden := filepath.Join("testdata", "transformed")
	got := map[string]string{}
	err = fs.WalkDir(os.DirFS(filepath.Join(dir, "conf")), ".", func(name string, entry fs.DirEntry,
		err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(dir, "conf", name))
		got[name] = comparableText(string(data), dir)
		return err
	})
	require.NoError(t, err)
	var changes strings.Builder
	for _, c := range e.Result.Changes {
		fmt.Fprintf(&changes, "%s: %s: %s\n", c.At, c.Rule, c.Reason)
	}
	got["changes.txt"] = comparableText(changes.String(), dir)
	if *update {
		require.NoError(t, os.RemoveAll(golden))
		for name, text := range got {
			path := filepath.Join(golden, name)
			require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
			require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		}
	}
	want := map[string]string{}
	err = fs.WalkDir(os.DirFS(golden), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(golden, name))
		want[name] = string(data)
		return err
	})
	require.NoError(t, err)
	for name := range want {
		require.Contains(t, got, name)
	}
	for name, text := range got {
		require.Equal(t, want[name], text, name)
	}
}

// notOurs are lines of the driver, which has tests of its own, digests of all the rest, and the
// user, which is the user of the test.
var notOurs = regexp.MustCompile(
	`(?sm)^init_by_lua_block \{.*|^# (tree|rules|files) [0-9a-f]+\n|^(user .*?|nginx.conf:\d+: main: user .*?)\n`)

func comparableText(text, dir string) string {
	return notOurs.ReplaceAllString(strings.ReplaceAll(text, dir, "/DIR"), "")
}

func TestBadConfigIsNamed(t *testing.T) {
	t.Parallel()
	for field, changes := range map[string][]func(*edge.Config){
		"Dir": {
			func(cfg *edge.Config) { cfg.Dir = "" },
			func(cfg *edge.Config) { cfg.Dir = filepath.Join(cfg.Dir, "a b") },
			func(cfg *edge.Config) {
				cfg.Dir = filepath.Join(cfg.Dir, strings.Repeat("long/", 20))
			},
		},
		"Tree": {func(cfg *edge.Config) { cfg.Tree = nil }},
		"Ports": {
			func(cfg *edge.Config) { cfg.Ports = nil },
			func(cfg *edge.Config) { cfg.Ports = map[int]int{80: 0} },
			func(cfg *edge.Config) { cfg.Ports = map[int]int{80: 65536} },
			func(cfg *edge.Config) { cfg.Ports = map[int]int{-1: 8880} },
		},
	} {
		for _, change := range changes {
			cfg := edge.Config{Dir: t.TempDir(), Tree: production(), Ports: map[int]int{80: 8880}}
			change(&cfg)
			_, err := edge.Open(t.Context(), cfg)
			require.ErrorIs(t, err, edge.ErrInvalid, field)
			require.ErrorContains(t, err, "edge: Config."+field+": ")
		}
	}
	_, err := edge.Open(t.Context(), edge.Config{})
	for _, field := range []string{"Dir", "Tree", "Ports"} {
		require.ErrorContains(t, err, "edge: Config."+field+": ")
	}
}
