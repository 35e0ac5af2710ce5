//go:build linux

package bench

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

// The figures of a run of all benchmarks go into README.md, between the marks, in place of those of
// an earlier run.
var (
	figuresMu sync.Mutex
	figures   = map[string]map[string]float64{} // benchmark → unit → value of its last run
	order     []string
)

// figure reports a value of one of several that a benchmark measures in turns.
func figure(b *testing.B, who, unit string, value float64) {
	b.ReportMetric(value, who+"-"+unit)
	keep(strings.TrimPrefix(b.Name(), "Benchmark")+"/"+who, unit, value)
}

func keep(name, unit string, value float64) {
	figuresMu.Lock()
	defer figuresMu.Unlock()
	if figures[name] == nil {
		figures[name] = map[string]float64{}
		order = append(order, name)
	}
	figures[name][unit] = value
}

func TestMain(m *testing.M) {
	before := load()
	code := m.Run()
	if code == 0 && flag.Lookup("test.bench").Value.String() == "." {
		if err := writeTable(before, load()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// load is how many processes wanted to run in the last minute.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "not known"
	}
	return strings.Fields(string(text))[0]
}

// ratios that the journal is measured by.
var ratios = []struct{ of, to, unit string }{
	{"Audit/verify", "Audit/sha256", "entries/cpu-s"},
	{"Audit/verify", "Audit/json", "entries/cpu-s"},
	{"Append/consul", "Append/bare-txn", "µs"},
	{"Thousand/consul", "Thousand/bare-txn", "appends/s"},
	{"Append/bbolt", "Append/bare-bbolt", "µs"},
}

func writeTable(before, after string) error {
	var rows strings.Builder
	fmt.Fprintf(&rows, "%d cores, %s, load before and after: %s and %s.\n\n", runtime.NumCPU(),
		runtime.Version(), before, after)
	rows.WriteString("| what | figures |\n| --- | --- |\n")
	for _, name := range order {
		var all []string
		for unit, v := range figures[name] {
			all = append(all, fmt.Sprintf("%s %s", rounded(v), unit))
		}
		slices.Sort(all)
		fmt.Fprintf(&rows, "| `%s` | %s |\n", name, strings.Join(all, ", "))
	}
	rows.WriteString("\n| ratio | |\n| --- | ---: |\n")
	for _, r := range ratios {
		if a, b := figures[r.of][r.unit], figures[r.to][r.unit]; a > 0 && b > 0 {
			fmt.Fprintf(&rows, "| `%s` to `%s`, %s | %.2f |\n", r.of, r.to, r.unit, a/b)
		}
	}
	text, err := os.ReadFile("README.md")
	if err != nil {
		return err
	}
	const begin, end = "<!-- table -->\n", "<!-- end of table -->"
	head, rest, ok := strings.Cut(string(text), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("README.md has no %q and %q", begin, end)
	}
	return os.WriteFile("README.md", []byte(head+begin+rows.String()+end+tail), 0o644)
}

func rounded(v float64) string {
	switch {
	case v >= 1000:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3g", v)
}
