package bench

import (
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

var write = flag.Bool("write", false, "put the table into README.md and the plot into scaling.svg")

// columns are the measurements at each size.
var columns = []string{"parse + write", "gonginx", "parse + transform", "nginx -t"}

type row struct {
	servers, upstreams, bytes int
	clock, cpu                []time.Duration // medians; 0 where nothing was measured
}

// TestTable prints one row for each size: the medians of rounds in which all are measured in turn.
// Nothing is asserted.
func TestTable(t *testing.T) {
	if testing.Short() {
		t.Skip("a measurement, not a test")
	}
	var rows []row
	for _, servers := range []int{1, 10, 100, 1_000, 5_000, 10_000, 50_000} {
		rows = append(rows, measureSize(t, servers))
	}
	text := table(rows)
	fmt.Print(text)
	if !*write {
		return
	}
	rewrite(t, "table", text)
	if err := os.WriteFile("scaling.svg", []byte(plot(rows)), 0o644); err != nil {
		t.Fatal(err)
	}
}

// rewrite puts text into README.md between the marks of the name.
func rewrite(t *testing.T, name, text string) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- "+name+" -->\n", "<!-- end of "+name+" -->\n"
	before, rest, _ := strings.Cut(string(readme), begin)
	_, after, ok := strings.Cut(rest, end)
	if !ok {
		t.Fatalf("README.md: want the lines %q and %q", begin, end)
	}
	if err := os.WriteFile("README.md", []byte(before+begin+text+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

func measureSize(t *testing.T, servers int) row {
	r := row{servers: servers, upstreams: max(servers/2, 3)}
	text := Tree(r.servers, r.upstreams)
	r.bytes = len(text)
	dir := t.TempDir()
	name := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(name, []byte("pid "+dir+"/pid;\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	rounds := 5
	if servers >= 10_000 {
		rounds = 3
	}
	work := []func(){
		func() { parseWrite(t, text) },
		func() { peerParseWrite(t, text) },
		transformer(t, text),
		func() {
			if out, err := exec.Command("nginx", "-t", "-q", "-p", dir, "-c", name, "-e",
				"/dev/null").CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		},
	}
	if servers > 10_000 {
		work[3] = nil // minutes of work that show nothing new
	}
	clock, used := make([][]time.Duration, len(work)), make([][]time.Duration, len(work))
	for range rounds {
		for i, f := range work {
			if f == nil {
				clock[i], used[i] = append(clock[i], 0), append(used[i], 0)
				continue
			}
			who := syscall.RUSAGE_SELF
			if i == 3 {
				who = syscall.RUSAGE_CHILDREN
			}
			runtime.GC()
			before, start := cpu(who), time.Now()
			f()
			clock[i], used[i] = append(clock[i], time.Since(start)),
				append(used[i], cpu(who)-before)
		}
	}
	for i := range work {
		slices.Sort(clock[i])
		slices.Sort(used[i])
		r.clock, r.cpu = append(r.clock, clock[i][rounds/2]), append(r.cpu, used[i][rounds/2])
	}
	return r
}

func table(rows []row) string {
	var b strings.Builder
	b.WriteString("| servers | upstreams | MB |")
	for _, c := range columns {
		fmt.Fprintf(&b, " %s, clock | cpu |", c)
	}
	b.WriteString("\n| ---: | ---: | ---: |" + strings.Repeat(" ---: | ---: |", len(columns)) +
		"\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %d | %d | %.3f |", r.servers, r.upstreams, float64(r.bytes)/1e6)
		for i := range columns {
			if r.clock[i] == 0 {
				b.WriteString(" | |")
				continue
			}
			fmt.Fprintf(&b, " %.2f ms | %.2f ms |", float64(r.clock[i].Microseconds())/1000,
				float64(r.cpu[i].Microseconds())/1000)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// plot draws processor time over servers, both in powers of ten: linear growth is a straight line
// that rises by one for one.
func plot(rows []row) string {
	const width, height, left, bottom = 720, 420, 70, 40
	x := func(servers int) float64 { return left + math.Log10(float64(servers))/5*(width-left-150) }
	y := func(d time.Duration) float64 {
		ms := max(float64(d.Microseconds())/1000, 0.01)
		return height - bottom - (math.Log10(ms)+2)/6.5*(height-bottom-20)
	}
	var b strings.Builder
	fmt.Fprintf(&b,
		`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, height)
	for e := -2; e <= 4; e++ {
		at := y(time.Duration(math.Pow10(e+3)) * time.Microsecond)
		fmt.Fprintf(&b,
			`<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%g ms</text>`+"\n", left, width-150, at, at, left-6, at+4, math.Pow10(e))
	}
	for _, n := range []int{1, 10, 100, 1_000, 10_000, 100_000} {
		fmt.Fprintf(&b,
			`<line x1="%.1f" x2="%.1f" y1="20" y2="%d" stroke="#ddd"/><text x="%.1f" y="%d" text-anchor="middle">%d</text>`+"\n", x(n), x(n), height-bottom, x(n), height-bottom+18, n)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">servers</text>`+"\n",
		(width-150+left)/2, height-4)
	for i, color := range []string{"#1f77b4", "#d62728", "#2ca02c", "#7f7f7f"} {
		var points []string
		last := 0.0
		for _, r := range rows {
			if r.cpu[i] > 0 {
				last = y(r.cpu[i])
				points = append(points, fmt.Sprintf("%.1f,%.1f", x(r.servers), last))
			}
		}
		fmt.Fprintf(&b,
			`<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/><text x="%d" y="%.1f" fill="%s">%s</text>`+"\n",
			strings.Join(points, " "), color, width-145, last+4, color, columns[i])
	}
	b.WriteString("</svg>\n")
	return b.String()
}
