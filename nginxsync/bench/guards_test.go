package bench

import (
	"fmt"
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

// BenchmarkGuards runs nginx -t on a transformed tree with guards and on production's, and reports
// peak memory and processor time of the one over those of the other. With one guard they are what
// the driver costs.
func BenchmarkGuards(b *testing.B) {
	for _, guards := range []int{1, 61} {
		b.Run(fmt.Sprint(guards), func(b *testing.B) { benchmarkGuards(b, guards, "") })
		b.Run(fmt.Sprint(guards, "-resolver"), func(b *testing.B) {
			benchmarkGuards(b, guards, "127.0.0.1:53")
		})
	}
}

func benchmarkGuards(b *testing.B, guards int, resolver string) {
	text := guardTree(guards)
	tree, err := conf.Parse(fstest.MapFS{"nginx.conf": {Data: []byte(text)}}, "nginx.conf")
	if err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	rules := transform.Rules{Listen: map[int]int{80: 8080}, TempDir: dir, Resolver: resolver,
		Main: map[string]string{"pid": filepath.Join(dir, "pid")}, Pass: map[string]string{},
		Snippets: luadriver.Snippets(luadriver.SnippetConfig{
			Socket: filepath.Join(dir, "admin.sock")})}
	for i := range guards {
		expression := fmt.Sprintf("$arg_to_%d", i)
		rules.Pass[expression] = expression
	}
	made, err := transform.Transform(tree, rules)
	if err != nil {
		b.Fatal(err)
	}
	production := &transform.Result{Main: "nginx.conf", Files: map[string]string{
		"nginx.conf": "pid " + filepath.Join(dir, "pid") + ";\n" + text}}
	names := []string{"production", "made"}
	for i, result := range []*transform.Result{production, made} {
		if err := result.WriteTo(filepath.Join(dir, names[i])); err != nil {
			b.Fatal(err)
		}
	}
	var memory [2]int64
	var used [2]time.Duration
	for b.Loop() {
		for i, at := range names {
			cmd := exec.Command("nginx", "-t", "-q", "-p", dir, "-c",
				filepath.Join(dir, at, "nginx.conf"), "-e", "/dev/null")
			if out, err := cmd.CombinedOutput(); err != nil {
				b.Fatalf("%v: %s", err, out)
			}
			usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
			memory[i] = max(memory[i], usage.Maxrss)
			used[i] += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		}
	}
	b.ReportMetric(float64(memory[0])/1024, "production-MB")
	b.ReportMetric(float64(memory[1])/float64(memory[0]), "memory-ratio")
	b.ReportMetric(used[1].Seconds()/used[0].Seconds(), "cpu-ratio")
}
