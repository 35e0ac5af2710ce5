package start

import (
	"encoding/json"
	"maps"
	"path"
	"slices"
	"strings"
)

// Dockerfile returns the start of the service in the last stage. A stage inherits missing settings
// from the stage that it begins with, for which ARGs count by their defaults. A command in the form
// without brackets is one that "sh -c" runs. ENVCONFIG_* variables are given as the flags that they
// stand for. ONBUILD does not apply to this image, but to a stage that begins with the one in which
// it stands. Unreadable instructions are passed over.
func Dockerfile(text string) Image {
	r := read(text)
	command := slices.Concat(r.now.entrypoint, r.now.cmd)
	if isWrapped(command) {
		command = slices.Insert(command, 1, r.now.flags...)
	}
	return Image{Command: command, Dir: r.now.dir, StopSignal: r.now.stopSignal, Base: r.now.base}
}

// read follows a Dockerfile to its end.
func read(text string) *reader {
	head := &stage{dir: "/"}
	lines := strings.Split(strings.TrimPrefix(text, "\ufeff"), "\n")
	r := &reader{head: head, now: head, stages: map[string]*stage{}, escape: escapeOf(lines)}
	instructions(lines, r.escape, r.do)
	return r
}

// stage holds the instructions of a stage of a Dockerfile about its command.
type stage struct {
	entrypoint, cmd, flags []string
	dir                    string
	stopSignal, base       string
	vars                   map[string]string // of ARG and ENV
	onbuild                []string
	ownCmd                 bool // an ENTRYPOINT takes away only the CMD of the stage before
}

// reader follows the instructions of a Dockerfile.
type reader struct {
	head, now *stage // head has the instructions before the first FROM
	stages    map[string]*stage
	escape    byte
}

// split parts an instruction's name, in upper case, from the rest of the line.
func split(line string) (name, rest string) {
	line = strings.TrimSpace(line)
	if i := strings.IndexAny(line, blanks); i >= 0 {
		line, rest = line[:i], strings.TrimSpace(line[i:])
	}
	return strings.ToUpper(line), rest
}

func (r *reader) do(name, rest string) {
	s := r.now
	switch name {
	case "FROM":
		r.from(rest)
	case "ARG":
		list, _ := words(rest, r.escape)
		for _, word := range list {
			key, value, ok := strings.Cut(word, "=")
			if ok {
				s.set(key, r.fill(value))
			} else if value, ok := r.head.vars[key]; ok {
				s.set(key, value)
			}
		}
	case "ENV":
		r.env(rest)
	case "WORKDIR":
		if rest = r.fill(rest); path.IsAbs(rest) {
			s.dir = rest
		} else {
			s.dir = path.Join(s.dir, rest)
		}
	case "STOPSIGNAL":
		s.stopSignal = r.fill(rest)
	case "ENTRYPOINT":
		s.entrypoint = argv(rest)
		if !s.ownCmd {
			s.cmd = nil
		}
	case "CMD":
		s.cmd, s.ownCmd = argv(rest), true
	case "ONBUILD":
		s.onbuild = append(s.onbuild, rest)
	}
}

// from begins a stage: FROM [--platform=…] image [AS name]. Variables in it are those before the
// first FROM.
func (r *reader) from(rest string) {
	fields := slices.DeleteFunc(strings.Fields(rest), func(f string) bool {
		return strings.HasPrefix(f, "--")
	})
	s := &stage{dir: "/"}
	r.now = r.head
	var triggers []string
	if len(fields) > 0 {
		s.base = r.fill(fields[0])
		if base := r.stages[strings.ToLower(r.fill(fields[0]))]; base != nil {
			*s = *base
			s.vars, s.flags = maps.Clone(base.vars), slices.Clone(base.flags)
			s.ownCmd, s.onbuild, triggers = false, nil, base.onbuild
		}
	}
	if len(fields) == 3 && strings.EqualFold(fields[1], "as") {
		r.stages[strings.ToLower(fields[2])] = s
	}
	r.now = s
	for _, trigger := range triggers {
		if name, rest := split(trigger); name != "FROM" && name != "ONBUILD" {
			r.do(name, rest)
		}
	}
}

// env is ENV's NAME=VALUE… or NAME VALUE.
func (r *reader) env(rest string) {
	s := r.now
	set := map[string]string{}
	list, _ := words(rest, r.escape)
	if len(list) > 0 && !strings.Contains(list[0], "=") {
		set[list[0]] = r.fill(strings.TrimSpace(rest[len(list[0]):]))
		list = nil
	}
	for _, word := range list {
		key, value, _ := strings.Cut(word, "=")
		set[key] = r.fill(value) // with what was set before this instruction
	}
	for _, key := range slices.Sorted(maps.Keys(set)) {
		s.set(key, set[key])
		if name, ok := strings.CutPrefix(key, "ENVCONFIG_"); ok {
			s.flags = append(s.flags, "--"+strings.ToLower(strings.ReplaceAll(name, "_", "-"))+"="+
				set[key])
		}
	}
}

func (s *stage) set(key, value string) {
	if s.vars == nil {
		s.vars = map[string]string{}
	}
	s.vars[key] = value
}

func (r *reader) fill(word string) string {
	return (&filler{escape: r.escape, vars: r.now.vars}).fill(word)
}

// argv returns the command line that ENTRYPOINT or CMD runs.
func argv(rest string) []string {
	var list []string
	if strings.HasPrefix(rest, "[") && json.Unmarshal([]byte(rest), &list) == nil {
		return list
	}
	return []string{"/bin/sh", "-c", rest}
}
