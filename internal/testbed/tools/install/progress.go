//go:build linux

package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/sluice-deploy/sluice/internal/testbed/tools"
)

// interval is the time between two reports of the progress.
const interval = 15 * time.Second

// progress reports the state of the builds. The time left is the known cost of the remaining builds
// at the speed of the finished ones.
type progress struct {
	out  io.Writer
	quit chan struct{}
	done sync.WaitGroup

	mu           sync.Mutex
	todo         []tools.Tool // the one at work first
	began        time.Time    // of the first
	finished     time.Duration
	total, count int // packages of the one at work
}

func newProgress(out io.Writer, todo []tools.Tool) *progress {
	p := &progress{out: out, quit: make(chan struct{}), todo: slices.Clone(todo), began: time.Now()}
	fmt.Fprintf(out, "Building servers for tests, once; stop it at will, it goes on where it "+
		"was. About %s on this machine if it does nothing else:\n", minutes(p.left()))
	for _, t := range todo {
		fmt.Fprintf(out, "  %s %s\n", t.Name, t.Version)
	}
	p.done.Go(func() {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-p.quit:
				return
			case <-ticker.C:
				p.tell()
			}
		}
	})
	return p
}

func (p *progress) stop() {
	close(p.quit)
	p.done.Wait()
}

func (p *progress) begin(t tools.Tool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total, p.count = 0, 0
	fmt.Fprintf(p.out, "%s %s: fetching its sources\n", t.Name, t.Version)
}

// compile notes how many packages of the tool at work are to be compiled; Go's build cache has the
// rest of them.
func (p *progress) compile(packages, all int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total = packages
	p.todo[0].Cost = time.Duration(float64(p.todo[0].Cost) * float64(packages) / float64(all))
}

func (p *progress) compiled() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count++
}

func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.out, "%s %s: done, %s in all so far\n", p.todo[0].Name, p.todo[0].Version,
		time.Since(p.began).Round(time.Second))
	p.finished += p.todo[0].Cost
	p.todo = p.todo[1:]
	p.total, p.count = 0, 0
}

func (p *progress) tell() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.todo) == 0 || p.total == 0 {
		return
	}
	fmt.Fprintf(p.out, "%s %s: %d of %d packages, about %s left in all\n", p.todo[0].Name,
		p.todo[0].Version, min(p.count, p.total), p.total, minutes(p.left()))
}

// left is the time that the rest takes: at first by the number of processors, then by the measured
// speed.
func (p *progress) left() time.Duration {
	var cost time.Duration
	for _, t := range p.todo {
		cost += t.Cost
	}
	done := p.finished
	if p.total > 0 {
		part := time.Duration(float64(p.todo[0].Cost) * min(1, float64(p.count)/float64(p.total)))
		cost, done = cost-part, done+part
	}
	speed := float64(runtime.NumCPU())
	if elapsed := time.Since(p.began); elapsed > time.Minute && done > 0 {
		speed = float64(done) / float64(elapsed)
	}
	return time.Duration(float64(cost) / speed)
}

func minutes(d time.Duration) string {
	if d < time.Minute {
		return "a minute"
	}
	return fmt.Sprintf("%d min", int((d+time.Minute-1)/time.Minute))
}
