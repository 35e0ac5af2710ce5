package bench

import (
	"syscall"
	"testing"
	"time"

	"github.com/tufanbarisyildirim/gonginx/dumper"
	"github.com/tufanbarisyildirim/gonginx/parser"

	"github.com/sluice-deploy/sluice/nginxsync/bundle"
	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

func parseWrite(tb testing.TB, text string) {
	f, err := conf.ParseFile("nginx.conf", text)
	if err != nil {
		tb.Fatal(err)
	}
	if f.Rebuild() != text {
		tb.Fatal("the file comes out differently")
	}
}

func peerParseWrite(tb testing.TB, text string) {
	c, err := parser.NewStringParser(text).Parse()
	if err != nil {
		tb.Fatal(err)
	}
	if dumper.DumpConfig(c, dumper.IndentedStyle) == "" {
		tb.Fatal("nothing was written")
	}
}

var rules = transform.Rules{
	Listen: map[int]int{80: 8080},
	Snippets: transform.Snippets{Upstream: func(u transform.Upstream) string {
		return "server 0.0.0.1;\nbalancer_by_lua_block { " +
			"package.loaded[\"sluice.routes\"].balance(\"" + u.Cluster + "\", 1, 10) }"
	}},
}

// transformer reads and transforms a bundle of one file.
func transformer(tb testing.TB, text string) func() {
	b, err := bundle.New(map[string]bundle.File{"nginx.conf": {Mode: 0o644, Text: text}},
		bundle.Limits{})
	if err != nil {
		tb.Fatal(err)
	}
	return func() {
		tree, err := conf.Parse(b.FS(), "nginx.conf")
		if err != nil {
			tb.Fatal(err)
		}
		if _, err := transform.Transform(tree, rules); err != nil {
			tb.Fatal(err)
		}
	}
}

// cpu is the processor time that this process, or its children, have used. On a machine that has
// much else to do it is a better measure than the clock.
func cpu(who int) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(who, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measure runs work over the tree of 10,000 servers.
func measure(b *testing.B, text string, work func()) {
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	before := cpu(syscall.RUSAGE_SELF)
	for b.Loop() {
		work()
	}
	used := (cpu(syscall.RUSAGE_SELF) - before) / time.Duration(b.N)
	b.ReportMetric(float64(used.Microseconds())/1000, "cpu-ms/op")
	b.ReportMetric(float64(len(text))/1e6/used.Seconds(), "MB/cpu-s")
}

func BenchmarkParseWrite(b *testing.B) {
	text := Tree(10_000, 5_000)
	measure(b, text, func() { parseWrite(b, text) })
}

func BenchmarkParseWriteGonginx(b *testing.B) {
	text := Tree(10_000, 5_000)
	measure(b, text, func() { peerParseWrite(b, text) })
}

func BenchmarkTransform(b *testing.B) {
	text := Tree(10_000, 5_000)
	measure(b, text, transformer(b, text))
}
