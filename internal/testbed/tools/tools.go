package tools

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Tool is one module beside this file and the programs that are built from it.
type Tool struct {
	Name     string   // of the directory
	Version  string   // as in its go.mod
	Packages []string // of the programs, each named by its last element unless Rename has it
	Rename   map[string]string
	LDFlags  string
	Tags     string        // of the build, with commas
	Cgo      bool          // the programs have C in them and are linked statically
	Cost     time.Duration // CPU time of a build with an empty cache, for the first estimate
}

// All are the tools, the quickest first.
var All = []Tool{
	{
		Name: "toxiproxy", Version: "2.5.0",
		Packages: []string{"github.com/Shopify/toxiproxy/v2/cmd/server"},
		Rename:   map[string]string{"server": "toxiproxy-server"}, Cost: time.Minute,
	},
	{
		Name: "crane", Version: "0.22.1",
		Packages: []string{"github.com/google/go-containerregistry/cmd/crane"},
		Cost:     time.Minute,
	},
	{Name: "consul", Version: "1.22.0", Packages: []string{"github.com/hashicorp/consul"},
		Cost: 10 * time.Minute},
	{
		Name: "etcd", Version: "3.6.16", Packages: []string{"go.etcd.io/etcd/server/v3"},
		Rename: map[string]string{"v3": "etcd"},
		Cost:   2 * time.Minute,
	},
	{
		Name: "runc", Version: "1.5.3", Packages: []string{"github.com/opencontainers/runc"},
		LDFlags: "-extldflags -static", Tags: "seccomp,netgo,osusergo", Cgo: true,
		Cost: 20 * time.Second,
	},
	{
		Name: "containerd", Version: "2.3.7", Cost: 2 * time.Minute,
		Packages: []string{
			"github.com/containerd/containerd/v2/cmd/containerd",
			"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
			"github.com/containerd/containerd/v2/cmd/ctr",
		},
		LDFlags: "-X github.com/containerd/containerd/v2/version.Version=v2.3.7",
		Tags:    "no_btrfs,no_devmapper,no_zfs",
	},
	{
		Name: "kubernetes", Version: "1.37.2", Cost: 14 * time.Minute,
		Packages: []string{
			"k8s.io/kubernetes/cmd/kube-apiserver", "k8s.io/kubernetes/cmd/kube-controller-manager",
			"k8s.io/kubernetes/cmd/kube-scheduler", "k8s.io/kubernetes/cmd/kubelet",
		},
		LDFlags: "-X k8s.io/component-base/version.gitVersion=v1.37.2 -X " +
			"k8s.io/component-base/version.gitMajor=1 " +
			"-X k8s.io/component-base/version.gitMinor=37",
	},
	{
		Name: "buildkit", Version: "0.34.2", Cost: 4 * time.Minute,
		Packages: []string{"github.com/moby/buildkit/cmd/buildkitd",
			"github.com/moby/buildkit/cmd/buildctl"},
	},
}

// Programs are the names of the tool's programs, in the order of its packages.
func (t Tool) Programs() []string {
	names := make([]string, len(t.Packages))
	for i, p := range t.Packages {
		names[i] = path.Base(p)
		if renamed, ok := t.Rename[names[i]]; ok {
			names[i] = renamed
		}
	}
	return names
}

// BuildFlags are the arguments of go build and go list. The compiler inlines nothing and writes no
// debugging information, which takes a third off the processor time of a build: the programs serve
// tests, which wait longer for a build than for a server.
func (t Tool) BuildFlags() []string {
	return []string{"-gcflags=all=-l -dwarf=false", "-tags=" + t.Tags,
		"-ldflags=" + strings.TrimSpace("-s -w "+t.LDFlags)}
}

// ErrMissing is returned by Path for a program that is not installed.
var ErrMissing = errors.New("not installed")

// Sums names the file beside the programs that holds their SHA-256 sums, as sha256sum writes it. It
// is written last.
const Sums = "sha256sums"

// Path returns the absolute path of an installed program, or ErrMissing with the command that
// installs it. The current directory has to be in the repository.
func Path(program string) (string, error) {
	for _, t := range All {
		if !slices.Contains(t.Programs(), program) {
			continue
		}
		dir, err := t.Dir()
		if err != nil {
			return "", err
		}
		if _, err := os.Stat(filepath.Join(dir, Sums)); err != nil {
			return "", fmt.Errorf("%s %s: %w: run: make tools TOOLS=%s", program, t.Version,
				ErrMissing, t.Name)
		}
		return filepath.Join(dir, program), nil
	}
	return "", fmt.Errorf("%s: no tool of that name: see package tools", program)
}

// Dir is the directory of the tool's programs, whether it exists or not.
func (t Tool) Dir() (string, error) {
	cache, err := Cache()
	if err != nil {
		return "", err
	}
	module, err := t.Module()
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	fmt.Fprintln(sum, runtime.Version(), runtime.GOARCH, t.Packages, t.BuildFlags(), t.Cgo)
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join(module, name))
		if err != nil {
			return "", fmt.Errorf("tool %s: %w", t.Name, err)
		}
		fmt.Fprintf(sum, "%s %d\n%s", name, len(data), data)
	}
	return filepath.Join(cache, fmt.Sprintf("%s-%s-%.12x", t.Name, t.Version, sum.Sum(nil))), nil
}

// Cache is the directory that holds all tools.
func Cache() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("tools: %w: set HOME or XDG_CACHE_HOME", err)
	}
	return filepath.Join(dir, "sluice", "tools"), nil
}

// Module is the directory of the tool's module.
func (t Tool) Module() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		module := filepath.Join(dir, "internal", "testbed", "tools", t.Name)
		if _, err := os.Stat(filepath.Join(module, "go.mod")); err == nil {
			return module, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("tool %s: %s is not in the repository, which has its module",
				t.Name, start)
		}
	}
}
