package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/luadriver"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// guardTree is a tree of 5,000 upstreams that passes requests by so many expressions.
func guardTree(guards int) string {
	var b strings.Builder
	text := strings.TrimSuffix(Tree(500, 5_000), "}\n")
	b.WriteString(strings.Replace(text, "user www-data;\n", "", 1))
	b.WriteString("    server {\n        listen 80;\n        server_name guarded.example;\n")
	for i := range guards {
		fmt.Fprintf(&b, "        location /%d/ { proxy_pass http://$arg_to_%d; }\n", i, i)
	}
	b.WriteString("    }\n}\n")
	return b.String()
}

// BenchmarkGuards runs nginx -t in turn on production's tree and on trees made of it. It reports
// peak memory and processor time of each over those of production. The steps tell the causes apart:
//
//   - modules is production with the driver's modules loaded and nothing else changed;
//   - undriven is transformed with snippets that leave a plain server in each upstream;
//   - driven is transformed with the driver's snippets, without a guard;
//   - the others have so many guards as well, or the rule resolver too.
func BenchmarkGuards(b *testing.B) {
	dir := os.Getenv(treesDir)
	if dir == "" {
		dir = b.TempDir()
		cmd := exec.Command(os.Args[0], "-test.run=^$", "-test.bench=^BenchmarkGuards$",
			"-test.benchtime=1x")
		cmd.Env = append(os.Environ(), treesDir+"="+dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		measureGuards(b, dir)
		return
	}
	pid := "pid " + filepath.Join(dir, "pid") + ";\n"
	snippets := luadriver.Snippets(luadriver.SnippetConfig{
		Socket: filepath.Join(dir, "admin.sock")})
	plain := transform.Snippets{Upstream: func(transform.Upstream) string {
		return "server 127.0.0.1:9;"
	}}
	var load strings.Builder
	for _, module := range snippets.Modules {
		fmt.Fprintf(&load, "load_module %s;\n", module)
	}
	files := func(text string) *transform.Result {
		return &transform.Result{Main: "nginx.conf", Files: map[string]string{"nginx.conf": text}}
	}
	for i, result := range []*transform.Result{
		files(pid + guardTree(0)),
		files(load.String() + pid + guardTree(0)),
		guarded(b, dir, 0, "", plain),
		guarded(b, dir, 0, "", snippets),
		guarded(b, dir, 1, "", snippets),
		guarded(b, dir, 61, "", snippets),
		guarded(b, dir, 61, "127.0.0.1:53", snippets),
	} {
		if err := result.WriteTo(filepath.Join(dir, guardTrees[i])); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(0, "ns/op") // this process only writes the trees
}

// treesDir names the environment variable by which a process of BenchmarkGuards is told to write
// the trees there. Linux counts the peak memory of a program's parent as the program's own, so that
// the process that runs Nginx must not have made the trees.
const treesDir = "SLUICE_GUARD_TREES"

var guardTrees = []string{"production", "modules", "undriven", "driven", "1-guard", "61-guards",
	"61-guards-resolver"}

func measureGuards(b *testing.B, dir string) {
	trees := guardTrees
	memory, used := make([]int64, len(trees)), make([]time.Duration, len(trees))
	for b.Loop() {
		for i, tree := range trees {
			cmd := exec.Command("nginx", "-t", "-q", "-p", dir, "-c",
				filepath.Join(dir, tree, "nginx.conf"), "-e", "/dev/null")
			if out, err := cmd.CombinedOutput(); err != nil {
				b.Fatalf("%s: %v: %s", tree, err, out)
			}
			usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
			memory[i] = max(memory[i], usage.Maxrss)
			used[i] += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		}
	}
	b.ReportMetric(float64(memory[0])/1024, "production-MB")
	for i, tree := range trees[1:] {
		b.ReportMetric(float64(memory[i+1])/float64(memory[0]), tree+"-memory")
		b.ReportMetric(used[i+1].Seconds()/used[0].Seconds(), tree+"-cpu")
	}
}

// guarded is the tree with so many guards, transformed.
func guarded(b *testing.B, dir string, guards int, resolver string,
	snippets transform.Snippets) *transform.Result {
	text := guardTree(guards)
	tree, err := conf.Parse(fstest.MapFS{"nginx.conf": {Data: []byte(text)}}, "nginx.conf")
	if err != nil {
		b.Fatal(err)
	}
	rules := transform.Rules{Listen: map[int]int{80: 8080}, TempDir: dir, Resolver: resolver,
		Main: map[string]string{"pid": filepath.Join(dir, "pid")}, Pass: map[string]string{},
		Snippets: snippets}
	for i := range guards {
		expression := fmt.Sprintf("$arg_to_%d", i)
		rules.Pass[expression] = expression
	}
	result, err := transform.Transform(tree, rules)
	if err != nil {
		b.Fatal(err)
	}
	return result
}
