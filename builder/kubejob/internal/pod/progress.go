package pod

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/sluice-deploy/sluice/builder"
)

// status is a line of buildctl --progress=rawjson: SolveStatus of BuildKit's client.
type status struct {
	Vertexes []vertex `json:"vertexes"`
	Logs     []struct {
		Vertex string `json:"vertex"`
		Data   []byte `json:"data"`
	} `json:"logs"`
	Warnings []struct {
		Short []byte `json:"short"`
	} `json:"warnings"`
}

type vertex struct {
	Digest    string     `json:"digest"`
	Name      string     `json:"name"`
	Started   *time.Time `json:"started"`
	Completed *time.Time `json:"completed"`
	Cached    bool       `json:"cached"`
	Error     string     `json:"error"`
}

// progress writes BuildKit's progress to a log, and keeps the facts that the verdict needs.
type progress struct {
	log   *Log
	plan  builder.Plan
	names map[string]string // of vertices that were told
	done  map[string]bool
	held  map[string][]byte // output of a vertex whose line has not ended

	bases  map[string]string // base images by digest, by the stage's name in a vertex
	errors []string          // lines that are no JSON
}

func newProgress(log *Log, plan builder.Plan) *progress {
	return &progress{log: log, plan: plan, names: map[string]string{}, done: map[string]bool{},
		held: map[string][]byte{}, bases: map[string]string{}}
}

// line takes a line of buildctl.
func (p *progress) line(text []byte) {
	var s status
	if len(text) == 0 || text[0] != '{' || json.Unmarshal(text, &s) != nil {
		p.errors = append(p.errors, string(text))
		return
	}
	for _, v := range s.Vertexes {
		p.vertex(v)
	}
	for _, l := range s.Logs {
		p.output(l.Vertex, l.Data)
	}
	for _, w := range s.Warnings {
		p.log.Line("      warning: %s", w.Short)
	}
}

func (p *progress) vertex(v vertex) {
	if m := fromAt.FindStringSubmatch(v.Name); m != nil {
		p.bases[m[1]] = m[2]
	}
	if v.Started == nil && !v.Cached {
		return
	}
	if _, told := p.names[v.Digest]; !told {
		p.names[v.Digest] = p.name(v.Name)
		if !strings.HasPrefix(v.Name, "[internal]") {
			p.log.Line("%s", p.names[v.Digest])
		}
	}
	if v.Completed == nil || p.done[v.Digest] {
		return
	}
	p.end(v.Digest)
	switch {
	case v.Cached:
		p.done[v.Digest] = true
		p.log.Line("      %s: cached", p.names[v.Digest])
	case v.Error != "":
		p.done[v.Digest] = true
		p.log.Line("      %s: %s", p.names[v.Digest], v.Error)
	}
}

// maxHeld is the number of bytes after which output without a line feed is written all the same.
const maxHeld = 64 << 10

func (p *progress) output(vertex string, data []byte) {
	held := append(p.held[vertex], data...)
	for {
		i := bytes.IndexByte(held, '\n')
		if i < 0 {
			break
		}
		p.log.Line("      %s", held[:i])
		held = held[i+1:]
	}
	if len(held) > maxHeld {
		var ready []byte
		if ready, held = p.log.Masks.Cut(held); len(ready) > 0 {
			p.log.Line("      %s", ready)
		}
	}
	p.held[vertex] = append([]byte(nil), held...)
}

// end writes the last line of a vertex.
func (p *progress) end(vertex string) {
	if held := p.held[vertex]; len(held) > 0 {
		p.log.Line("      %s", held)
	}
	delete(p.held, vertex)
}

var (
	step   = regexp.MustCompile(`^\[(?:(\S+) )?(\d+)/(\d+)\] (\S+)`)
	fromAt = regexp.MustCompile(`^\[(?:(\S+) )?1/\d+\] FROM (\S+@sha256:[0-9a-f]{64})`)
)

// base returns the base image of the last stage by digest, "" for scratch. BuildKit lists the bases
// of all stages in no fixed order, and lists a base of several stages once, under one stage's name.
func (p *progress) base() string {
	stages := p.plan.Stages
	if len(stages) == 0 {
		return ""
	}
	last := len(stages) - 1
	for i := last - 1; i >= 0; i-- { // a stage begins with one that stands above it
		if strings.EqualFold(stages[i].Name, stages[last].BaseName) {
			last = i
		}
	}
	if base := p.bases[p.stage(last)]; base != "" {
		return base
	}
	for i, s := range stages {
		if base := p.bases[p.stage(i)]; base != "" && s.BaseName == stages[last].BaseName {
			return base
		}
	}
	return ""
}

// stage returns the name that BuildKit gives a stage in the names of its vertices.
func (p *progress) stage(i int) string {
	switch name := p.plan.Stages[i].Name; {
	case len(p.plan.Stages) == 1:
		return ""
	case name != "":
		return name
	}
	return fmt.Sprintf("stage-%d", i)
}

// name returns the name of a vertex without values of build arguments, which BuildKit fills in: the
// instruction as the Dockerfile has it.
func (p *progress) name(name string) string {
	m := step.FindStringSubmatch(name)
	if m == nil || m[4] == "FROM" {
		return name
	}
	prefix := fmt.Sprintf("[%s/%s] ", m[2], m[3])
	if m[1] != "" {
		prefix = fmt.Sprintf("[%s %s/%s] ", m[1], m[2], m[3])
	}
	k, _ := strconv.Atoi(m[2])
	n, _ := strconv.Atoi(m[3])
	for i, s := range p.plan.Stages {
		if m[1] != "" && m[1] != s.Name && m[1] != fmt.Sprintf("stage-%d", i) {
			continue
		}
		var made []string
		for _, c := range s.Commands {
			if makesLayer(c) {
				made = append(made, fmt.Sprint(c))
			}
		}
		at := k - 1 - (n - len(made)) // n counts a FROM of an image, too
		if at >= 0 && at < len(made) && n-len(made) <= 1 {
			return prefix + made[at]
		}
	}
	return prefix + m[4] + " …"
}

func makesLayer(c instructions.Command) bool {
	switch c.(type) {
	case *instructions.RunCommand, *instructions.CopyCommand, *instructions.AddCommand,
		*instructions.WorkdirCommand:
		return true
	}
	return false
}
