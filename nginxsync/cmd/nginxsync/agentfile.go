package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/sluice-deploy/sluice/nginxsync"
)

// agentFile is the configuration file of the agent. docs/nginxsync-agent.md describes each key.
type agentFile struct {
	Listen    string        `yaml:"listen"`
	Public    string        `yaml:"public"`
	Remote    *remoteEntry  `yaml:"remote"`
	Relay     *remoteEntry  `yaml:"relay"`
	Lag       time.Duration `yaml:"lag"`
	DrainFile string        `yaml:"drainFile"`
	Nginx     []nginxEntry  `yaml:"nginx"`
	Sources   []sourceEntry `yaml:"sources"`
	Guard     guardEntry    `yaml:"guard"`
	Health    *healthEntry  `yaml:"health"`
	Log       logEntry      `yaml:"log"`

	name  string
	lines map[string]int // by path, such as sources[0].consul
}

// remoteEntry lets other machines in: a platform that asks and drains, or agents that follow.
type remoteEntry struct {
	Listen    string `yaml:"listen"`
	TokenFile string `yaml:"tokenFile"`
	Cert      string `yaml:"cert"`
	Key       string `yaml:"key"`
}

type nginxEntry struct {
	Name      string            `yaml:"name"`
	Socket    string            `yaml:"socket"`
	StateFile string            `yaml:"stateFile"`
	Tree      string            `yaml:"tree"`
	Root      string            `yaml:"root"`
	Also      map[string]string `yaml:"also"`
	Start     *startEntry       `yaml:"start"`
	CutAfter  time.Duration     `yaml:"cutAfter"`
	KeepOpen  bool              `yaml:"keepOpen"`
}

// startEntry has the agent start Nginx.
type startEntry struct {
	Prefix   string `yaml:"prefix"`
	Program  string `yaml:"program"`
	PIDFile  string `yaml:"pidFile"`
	ErrorLog string `yaml:"errorLog"`
	Stop     bool   `yaml:"stop"`
}

// sourceEntry has one of Consul, File, VIP and Relay.
type sourceEntry struct {
	Name   string       `yaml:"name"`
	Consul *consulEntry `yaml:"consul"`
	File   *fileEntry   `yaml:"file"`
	VIP    *vipEntry    `yaml:"vip"`
	Relay  *relayEntry  `yaml:"relay"`
}

type vipEntry struct {
	URL          string        `yaml:"url"`
	TokenFile    string        `yaml:"tokenFile"`
	TLS          *tlsEntry     `yaml:"tls"`
	Branches     []string      `yaml:"branches"`
	Tasks        bool          `yaml:"tasks"`
	KeepBaseline bool          `yaml:"keepBaseline"`
	KeepEnded    int           `yaml:"keepEnded"`
	Silence      time.Duration `yaml:"silence"`
}

type consulEntry struct {
	Address     string            `yaml:"address"`
	Datacenter  string            `yaml:"datacenter"`
	Namespace   string            `yaml:"namespace"`
	TokenFile   string            `yaml:"tokenFile"`
	TLS         *tlsEntry         `yaml:"tls"`
	Tag         string            `yaml:"tag"`
	Services    map[string]string `yaml:"services"`
	Filter      string            `yaml:"filter"`
	VersionMeta string            `yaml:"versionMeta"`
	Wait        time.Duration     `yaml:"wait"`
	Connections int               `yaml:"connections"`
	MaxStale    time.Duration     `yaml:"maxStale"`
	FirstWait   time.Duration     `yaml:"firstWait"`
}

type tlsEntry struct {
	CA         string `yaml:"ca"`
	Cert       string `yaml:"cert"`
	Key        string `yaml:"key"`
	ServerName string `yaml:"serverName"`
}

type fileEntry struct {
	Path  string        `yaml:"path"`
	Every time.Duration `yaml:"every"`
}

type guardEntry struct {
	Share        float64       `yaml:"share"`
	AlarmAfter   time.Duration `yaml:"alarmAfter"`
	ReleaseAfter time.Duration `yaml:"releaseAfter"`
}

type logEntry struct {
	Level  string `yaml:"level"`
	Format string `yaml:"format"`
}

// The places of a host with one Nginx. transform writes the same into the tree.
const (
	defaultConfig = "/etc/sluice/agent.yaml"
	defaultListen = "unix:/run/sluice/agent.sock"
	defaultSocket = "/run/sluice/admin.sock"
	defaultState  = "/var/lib/sluice/routes"
	defaultDrain  = "/var/lib/sluice/drained"
)

// mostConfig is the limit of the file.
const mostConfig = 1 << 20

// readAgentFile reads the file and fills in the defaults. The error lists all keys that are
// not known and values that are not of their type, each with its line.
func readAgentFile(name string) (*agentFile, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return parseAgentFile(name, text)
}

func parseAgentFile(name string, text []byte) (*agentFile, error) {
	if len(text) > mostConfig {
		return nil, fmt.Errorf("%s: more than %d bytes: %w", name, mostConfig,
			nginxsync.ErrTooLarge)
	}
	f := &agentFile{name: name, lines: map[string]int{}}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var root yaml.Node
	if err := decoder.Decode(&root); errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: the file is empty: want a list of sources at least", name)
	} else if err != nil {
		return nil, yamlErrors(name, err)
	}
	if err := decoder.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: want one YAML document", name)
	}
	problems := f.locate(&root, "", reflect.TypeFor[agentFile]())
	if err := root.Decode(f); err != nil {
		problems = append(problems, yamlErrors(name, err))
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	f.defaults()
	return f, nil
}

func (f *agentFile) defaults() {
	f.Listen = cmp.Or(f.Listen, defaultListen)
	f.DrainFile = cmp.Or(f.DrainFile, defaultDrain)
	if len(f.Nginx) == 0 {
		f.Nginx = []nginxEntry{{}}
	}
	for i := range f.Nginx {
		n := &f.Nginx[i]
		if len(f.Nginx) == 1 {
			n.Name = cmp.Or(n.Name, "nginx")
			n.Socket = cmp.Or(n.Socket, defaultSocket)
			n.StateFile = cmp.Or(n.StateFile, defaultState)
		}
	}
	nameSources(f.Sources)
}

func nameSources(list []sourceEntry) {
	for i := range list {
		s := &list[i]
		s.Name = cmp.Or(s.Name, s.kind())
		if s.Relay != nil {
			nameSources(s.Relay.Fallback)
		}
	}
}

// kind is the key that the source has.
func (s sourceEntry) kind() string {
	switch {
	case s.Consul != nil:
		return "consul"
	case s.File != nil:
		return "file"
	case s.VIP != nil:
		return "vip"
	case s.Relay != nil:
		return "relay"
	}
	return ""
}

// locate notes the line of each key below a node that is decoded into a value of type t, and takes
// keys out that come twice. It returns the problems of the keys.
func (f *agentFile) locate(n *yaml.Node, at string, t reflect.Type) (problems []error) {
	if t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch n.Kind {
	case yaml.DocumentNode:
		return f.locate(n.Content[0], at, t)
	case yaml.SequenceNode:
		for i, child := range n.Content {
			key := fmt.Sprintf("%s[%d]", at, i)
			f.lines[key] = child.Line
			problems = append(problems, f.locate(child, key, element(t, reflect.Slice))...)
		}
	case yaml.MappingNode:
		first := map[string]int{}
		var once []*yaml.Node
		for i := 0; i+1 < len(n.Content); i += 2 {
			k, v := n.Content[i], n.Content[i+1]
			key := strings.TrimPrefix(at+"."+k.Value, ".")
			into, known := member(t, k.Value)
			switch line, twice := first[k.Value]; {
			case twice:
				problems = append(problems, fmt.Errorf("%s:%d: key %.64q comes twice, first in "+
					"line %d", f.name, k.Line, key, line))
				continue
			case !known:
				problems = append(problems, fmt.Errorf("%s:%d: unknown key %.64q", f.name, k.Line,
					key))
			}
			first[k.Value] = k.Line
			once = append(once, k, v)
			f.lines[key] = k.Line
			problems = append(problems, f.locate(v, key, into)...)
		}
		n.Content = once
	}
	return problems
}

// element is the type of the elements of t, nil when t is not of that kind.
func element(t reflect.Type, kind reflect.Kind) reflect.Type {
	if t == nil || t.Kind() != kind {
		return nil
	}
	return t.Elem()
}

// member returns the type of a key's value in t, and whether t has the key: a struct has the keys
// of its tags. A value that is no section is a problem of the decoder.
func member(t reflect.Type, key string) (reflect.Type, bool) {
	if t == nil || t.Kind() != reflect.Struct {
		return element(t, reflect.Map), true
	}
	for field := range t.Fields() {
		if field.Tag.Get("yaml") == key && key != "" {
			return field.Type, true
		}
	}
	return nil, false
}

// problem is an error about a key, with its line. Of a key that the file does not have, the line is
// that of the section that it would be in.
func (f *agentFile) problem(at string, err error) error {
	line, near := 0, at
	for line == 0 && near != "" {
		line = f.lines[near]
		near = near[:max(strings.LastIndexByte(near, '.'), strings.LastIndexByte(near, '['), 0)]
	}
	if line == 0 {
		return fmt.Errorf("%s: %s: %w", f.name, at, err)
	}
	return fmt.Errorf("%s:%d: %s: %w", f.name, line, at, err)
}

var (
	yamlLine = regexp.MustCompile(`^(?:yaml: )?line (\d+): (?s:(.*))$`)
	yamlType = regexp.MustCompile(`^cannot unmarshal !!(\w+)(?s:.*) into (\S+)$`)
)

// yamlErrors puts the errors of the decoder into the form FILE:LINE: TEXT, without the values.
func yamlErrors(name string, err error) error {
	texts := []string{err.Error()}
	if all, ok := errors.AsType[*yaml.TypeError](err); ok {
		texts = all.Errors
	}
	var errs []error
	for _, text := range texts {
		m := yamlLine.FindStringSubmatch(text)
		if m == nil {
			errs = append(errs, fmt.Errorf("%s: %s", name, strings.TrimPrefix(text, "yaml: ")))
			continue
		}
		errs = append(errs, fmt.Errorf("%s:%s: %s", name, m[1], plainYAML(m[2])))
	}
	return errors.Join(errs...)
}

func plainYAML(text string) string {
	m := yamlType.FindStringSubmatch(text)
	if m == nil {
		return text
	}
	want := "a section"
	switch into := m[2]; {
	case into == "time.Duration":
		want = "a duration, such as 10s"
	case into == "int", into == "float64":
		want = "a number"
	case into == "string":
		want = "text"
	case strings.HasPrefix(into, "[]"):
		want = "a list"
	}
	found := map[string]string{"str": "text", "int": "a number without a unit", "seq": "a list",
		"map": "a section", "bool": "true or false", "float": "a number", "null": "nothing"}
	return fmt.Sprintf("want %s, found %s", want, cmp.Or(found[m[1]], m[1]))
}

// flatten returns the errors that errors.Join has joined, each on its own.
func flatten(err error) (all []error) {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || err.Error() != errors.Join(joined.Unwrap()...).Error() {
		return []error{err}
	}
	for _, e := range joined.Unwrap() {
		all = append(all, flatten(e)...)
	}
	return all
}
