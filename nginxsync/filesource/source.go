// Package filesource is an nginxsync.Source of a file in JSON or YAML, for machines without a
// registry and for tests by hand:
//
//	{
//	  "baseline": {"hello_web": [{"id": "i1", "addr": "10.0.0.7:8080", "version": "v1", "weight": 2}]},
//	  "overlays": {"10.58.0.2": {"hello_web": []}},
//	  "branches": {"next": {"hello_api": [{"id": "n1", "addr": "10.0.0.9:8080"}]}},
//	  "scopes": {
//	    "10.58.0.2": {"branches": ["next"]},
//	    "10.58.0.3": {"ended": {"task": "T-1", "at": "2026-11-30T12:00:00Z", "versions": {"hello_web": "v1"}}}
//	  },
//	  "pools": ["10.58.0.0/24", "10.58.1.1-10.58.1.9"],
//	  "tasks": {"T-2": "10.58.0.2"},
//	  "planned": ["old_web", "10.58.0.3", "@next"]
//	}
//
// A file whose name ends in .yaml or .yml is YAML with the same fields, every other one JSON. The
// fields are those of nginxsync.Snapshot and nginxsync.Instance. A pool is a network, which is all
// its addresses, an address, or the first and the last one of a range. A plan names a cluster of
// the baseline, a VIP, or "@" and a branch. A file that is missing, empty or not right is an error,
// and the last snapshot stays in force: write the next one beside it and rename it into place.
package filesource

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/sluice-deploy/sluice/internal/strictjson"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check"
	"github.com/sluice-deploy/sluice/nginxsync/internal/retry"
)

// Config configures a Source. Path is required.
type Config struct {
	// Path is the path of the file: YAML with .yaml or .yml at its end, else JSON.
	Path string
	// Every is how often the file is looked at. The default is 1 second.
	Every time.Duration
}

// mostBytes is the limit of the file.
const mostBytes = 64 << 20

// Source is an nginxsync.Source of a file. It is safe for concurrent use.
type Source struct {
	cfg Config

	mu       sync.Mutex
	looked   os.FileInfo // of the last look that found a whole file
	sum      [sha256.Size]byte
	snapshot nginxsync.Snapshot
	revision uint64
}

var _ nginxsync.Source = (*Source)(nil)

// New makes a source; it does not look at the file yet. A configuration that is not valid is an
// error with all its problems and nginxsync.ErrInvalid in its chain.
func New(cfg Config) (*Source, error) {
	p := check.Problems{Package: "filesource", Sentinel: nginxsync.ErrInvalid}
	if p.Require("Path", cfg.Path != ""); cfg.Path != "" && !filepath.IsAbs(cfg.Path) {
		p.Add("Path", "%q: want an absolute path", cfg.Path)
	}
	p.Duration("Every", &cfg.Every, time.Second)
	if err := p.Err(); err != nil {
		return nil, err
	}
	return &Source{cfg: cfg}, nil
}

// Watch implements nginxsync.Source. The error of a file that cannot be read names it, and the
// place where it is wrong.
func (s *Source) Watch(ctx context.Context, after uint64) (nginxsync.Snapshot, uint64, error) {
	for {
		if ctx.Err() != nil {
			return nginxsync.Snapshot{}, 0, context.Cause(ctx)
		}
		snapshot, revision, err := s.look()
		if err != nil || revision != after {
			return snapshot, revision, err
		}
		if err := retry.Sleep(ctx, s.cfg.Every); err != nil {
			return nginxsync.Snapshot{}, 0, err
		}
	}
}

// look reads the file when it is another one than at the last look.
func (s *Source) look() (nginxsync.Snapshot, uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	file, err := os.Open(s.cfg.Path)
	if err != nil {
		return nginxsync.Snapshot{}, 0, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nginxsync.Snapshot{}, 0, err
	}
	if s.looked != nil && os.SameFile(info, s.looked) && info.Size() == s.looked.Size() &&
		info.ModTime().Equal(s.looked.ModTime()) && time.Since(info.ModTime()) > 2*time.Second {
		return s.snapshot, s.revision, nil
	}
	text, err := io.ReadAll(io.LimitReader(file, mostBytes+1))
	if err != nil {
		return nginxsync.Snapshot{}, 0, err
	}
	if len(text) > mostBytes {
		return nginxsync.Snapshot{}, 0, fmt.Errorf("%s: more than %d bytes: %w", s.cfg.Path,
			mostBytes, nginxsync.ErrTooLarge)
	}
	if sum := sha256.Sum256(text); s.revision == 0 || sum != s.sum {
		snapshot, err := parse(text, yamlName.MatchString(s.cfg.Path))
		if err != nil {
			return nginxsync.Snapshot{}, 0, fmt.Errorf("%s: %w: %w", s.cfg.Path, err,
				nginxsync.ErrInvalid)
		}
		s.snapshot, s.sum = snapshot, sum
		s.revision++
	}
	s.looked = info
	return s.snapshot, s.revision, nil
}

// instance is nginxsync.Instance in the file.
type instance struct {
	ID      string         `json:"id"`
	Addr    netip.AddrPort `json:"addr"`
	Weight  int            `json:"weight"`
	Version string         `json:"version"`
	Backup  bool           `json:"backup"`
}

type clusters map[string][]instance

// scope is nginxsync.Scope in the file.
type scope struct {
	Branches []string `json:"branches"`
	Ended    *struct {
		Task     string            `json:"task"`
		At       time.Time         `json:"at"`
		Versions map[string]string `json:"versions"`
	} `json:"ended"`
}

// pool is nginxsync.Range in the file.
type pool nginxsync.Range

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *pool) UnmarshalText(text []byte) error {
	first, last, isRange := strings.Cut(string(text), "-")
	if network, err := netip.ParsePrefix(first); err == nil && !isRange {
		if network != network.Masked() {
			return fmt.Errorf("pool %.64q: host bits are set: write %s", text, network.Masked())
		}
		end := network.Addr().AsSlice()
		for bit := network.Bits(); bit < len(end)*8; bit++ {
			end[bit/8] |= 0x80 >> (bit % 8)
		}
		p.First = network.Addr()
		p.Last, _ = netip.AddrFromSlice(end)
		return nil
	}
	if !isRange {
		last = first
	}
	var err1, err2 error
	p.First, err1 = netip.ParseAddr(first)
	p.Last, err2 = netip.ParseAddr(last)
	if err1 != nil || err2 != nil || p.First.BitLen() != p.Last.BitLen() || p.Last.Less(p.First) {
		return fmt.Errorf("pool %.64q: want a network, an address, or two of one family as "+
			"10.58.1.1-10.58.1.9", text)
	}
	return nil
}

// routes is the file. YAML has the names of the JSON fields, which are those of the Go fields in
// lower case.
type routes struct {
	Baseline clusters                `json:"baseline"`
	Overlays map[netip.Addr]clusters `json:"overlays"`
	Branches map[string]clusters     `json:"branches"`
	Scopes   map[netip.Addr]scope    `json:"scopes"`
	Pools    []pool                  `json:"pools"`
	Tasks    map[string]netip.Addr   `json:"tasks"`
	Planned  []string                `json:"planned"`
}

func decodeJSON(text []byte, in *routes) error {
	if err := strictjson.Decode(text, in); errors.Is(err, io.EOF) {
		return errors.New("the file is empty: want a JSON object")
	} else if err != nil {
		return err
	}
	if bytes.Equal(bytes.TrimSpace(text), []byte("null")) {
		return errors.New("null: want a JSON object")
	}
	return nil
}

var yamlName = regexp.MustCompile(`\.ya?ml$`)

// decodeYAML decodes one document, which is a mapping. A key that is not known or that is there
// twice is an error with its line.
func decodeYAML(text []byte, in *routes) error {
	var root yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	if err := decoder.Decode(&root); errors.Is(err, io.EOF) {
		return errors.New("the file is empty: want a YAML mapping")
	} else if err != nil {
		return err
	}
	if root.Content[0].Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: want a YAML mapping", root.Content[0].Line)
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return errors.New("want one YAML document")
	}
	decoder = yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	err := decoder.Decode(in)
	if err != nil {
		err = cmp.Or(badAddr(&root), err)
	}
	return err
}

// badAddr finds the first instance whose address is none: the decoder names neither the line nor
// the text.
func badAddr(n *yaml.Node) error {
	for i, child := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 1 && n.Content[i-1].Value == "addr" &&
			child.Kind == yaml.ScalarNode {
			if _, err := netip.ParseAddrPort(child.Value); err != nil {
				return fmt.Errorf("line %d: addr %.64q: want an address with a port", child.Line,
					child.Value)
			}
		}
		if err := badAddr(child); err != nil {
			return err
		}
	}
	return nil
}

// parse reads the text of a file.
func parse(text []byte, isYAML bool) (nginxsync.Snapshot, error) {
	var in routes
	decode := decodeJSON
	if isYAML {
		decode = decodeYAML
	}
	if err := decode(text, &in); err != nil {
		return nginxsync.Snapshot{}, err
	}
	out := nginxsync.Snapshot{Baseline: in.Baseline.instances(), Planned: intents(in.Planned),
		Overlays: make(map[netip.Addr]map[string][]nginxsync.Instance, len(in.Overlays))}
	for vip, overlay := range in.Overlays {
		out.Overlays[vip] = overlay.instances()
	}
	if len(in.Branches) > 0 {
		out.Branches = make(map[string]map[string][]nginxsync.Instance, len(in.Branches))
	}
	for name, branch := range in.Branches {
		out.Branches[name] = branch.instances()
	}
	if len(in.Scopes) > 0 {
		out.Scopes = make(map[netip.Addr]nginxsync.Scope, len(in.Scopes))
	}
	for vip, s := range in.Scopes {
		scope := nginxsync.Scope{Branches: s.Branches}
		if s.Ended != nil {
			if scope.Ended = nginxsync.Ended(*s.Ended); scope.Ended.At.IsZero() {
				return nginxsync.Snapshot{}, fmt.Errorf("scopes %s: ended: want \"at\", the time "+
					"when the lease ended", vip)
			}
		}
		out.Scopes[vip] = scope
	}
	for _, p := range in.Pools {
		out.Pools = append(out.Pools, nginxsync.Range(p))
	}
	out.Tasks = in.Tasks
	return out, nil
}

func (c clusters) instances() map[string][]nginxsync.Instance {
	out := make(map[string][]nginxsync.Instance, len(c))
	for cluster, list := range c {
		out[cluster] = make([]nginxsync.Instance, len(list))
		for i, in := range list {
			out[cluster][i] = nginxsync.Instance(in)
		}
	}
	return out
}

// intents are plans from the list "planned": names of clusters of the baseline, VIPs, and "@" with
// a branch.
func intents(names []string) (list []nginxsync.Intent) {
	for _, name := range names {
		if vip, err := netip.ParseAddr(name); err == nil {
			list = append(list, nginxsync.Intent{VIP: vip, By: "file"})
		} else if branch, ok := strings.CutPrefix(name, "@"); ok {
			list = append(list, nginxsync.Intent{Branch: branch, By: "file"})
		} else {
			list = append(list, nginxsync.Intent{Cluster: name, By: "file"})
		}
	}
	return list
}
