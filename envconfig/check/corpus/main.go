// Command corpus has package check read trees that this project did not write, and prints how often
// each rule finds something. scripts/check-corpus fetches the trees: DIRECTORY holds directories of
// packages, debian/NAME, npm/NAME@VERSION and go/MODULE@VERSION. Two versions of a package are two
// environments of one image; any other package is production's alone, where every rule counts.
//
//	go run ./envconfig/check/corpus [-v] [-rules FILE] DIRECTORY
package main

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing/fstest"
	"time"

	"github.com/sluice-deploy/sluice/envconfig"
	"github.com/sluice-deploy/sluice/envconfig/check"
)

func main() {
	verbose := flag.Bool("v", false, "print the findings of type, syntax, secret and placeholder")
	rules := flag.String("rules", "", "`file` of gitleaks' rules, whose tokens are looked for")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: corpus [-v] [-rules FILE] DIRECTORY")
		os.Exit(2)
	}
	err := run(flag.Arg(0), *verbose)
	if err == nil && *rules != "" {
		err = recall(*rules, *verbose)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "corpus:", err)
		os.Exit(1)
	}
}

// maxFile is the size beyond which a file is no configuration, maxFiles bounds the files of a
// package.
const (
	maxFile  = 256 << 10
	maxFiles = 20_000
)

type tally struct {
	packages, files, keys int
	findings              map[string]int
	took                  time.Duration
}

func run(dir string, verbose bool) error {
	packages, err := find(dir)
	if err != nil {
		return err
	}
	fmt.Printf("%-8s %8s %8s %9s %s\n", "from", "packages", "files", "settings",
		"findings for each 1,000 files")
	for _, kind := range []string{"debian", "npm", "go"} {
		t := tally{findings: map[string]int{}}
		for _, versions := range packages[kind] {
			if err := t.read(versions, verbose); err != nil {
				return err
			}
		}
		fmt.Printf("%-8s %8d %8d %9d", kind, t.packages, t.files, t.keys)
		for _, rule := range []string{check.RuleSyntax, check.RuleType, check.RuleSecret,
			check.RulePlaceholder, check.RuleLeak} {
			fmt.Printf(" %s %.2f (%d)", rule,
				1000*float64(t.findings[rule])/float64(max(1, t.files)), t.findings[rule])
		}
		fmt.Printf(" in %.1f s\n", t.took.Seconds())
	}
	return nil
}

var version = regexp.MustCompile(`^(.+)@v?[0-9][^/]*$`)

// find lists the packages of each kind, each with its versions' directories.
func find(dir string) (map[string][][]string, error) {
	out := map[string][][]string{}
	for _, kind := range []string{"debian", "npm", "go"} {
		byName := map[string][]string{}
		root := filepath.Join(dir, kind)
		err := filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
			if err != nil || !e.IsDir() || name == root {
				return err
			}
			rel, _ := filepath.Rel(root, name)
			if kind == "debian" {
				byName[rel] = append(byName[rel], name)
				return fs.SkipDir
			}
			if m := version.FindStringSubmatch(rel); m != nil {
				byName[m[1]] = append(byName[m[1]], name)
				return fs.SkipDir
			}
			return nil
		})
		if err != nil && !os.IsNotExist(err) {
			return nil, err
		}
		names := make([]string, 0, len(byName))
		for name := range byName {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			out[kind] = append(out[kind], byName[name])
		}
	}
	return out, nil
}

// read checks a package.
func (t *tally) read(versions []string, verbose bool) error {
	image := fstest.MapFS{}
	for i, dir := range versions {
		environment := "production"
		if i > 0 {
			environment = "test"
		}
		if err := load(image, "envs/"+environment+"/", dir); err != nil {
			return err
		}
	}
	t.packages += len(versions)
	if len(image) == 0 {
		return nil
	}
	manifest, err := envconfig.Scan(image)
	if err != nil {
		return fmt.Errorf("%s: %w", versions[0], err)
	}
	begin := time.Now()
	report, err := check.Run(image, manifest, check.Config{}, begin)
	if err != nil {
		return fmt.Errorf("%s: %w", versions[0], err)
	}
	t.took += time.Since(begin)
	t.files += report.Files
	t.keys += report.Keys
	for _, f := range report.Findings {
		t.findings[f.Rule]++
		if verbose && slices.Contains([]string{check.RuleSyntax, check.RuleType, check.RuleSecret,
			check.RulePlaceholder, check.RuleLeak}, f.Rule) {
			fmt.Printf("%s: %s\n", filepath.Base(versions[0]), f)
		}
	}
	return nil
}

// left are directories of files that are broken on purpose, or are no configuration.
var left = []string{"test", "tests", "testdata", "__tests__", "fixtures", "spec", "e2e", "mocks",
	"node_modules", ".git", "vendor"}

// formats that are looked at: programs are not configuration, and are in no image's envs/.
var formats = []string{"properties", "yaml", "json", "toml", "xml", "ini", "dotenv", "conf",
	"shell"}

func load(image fstest.MapFS, prefix, dir string) error {
	return filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && slices.Contains(left, e.Name()) {
			return fs.SkipDir
		}
		info, err := e.Info()
		if err != nil || !e.Type().IsRegular() || info.Size() > maxFile || len(image) >= maxFiles {
			return nil
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if !slices.Contains(formats, check.Format(rel)) || strings.ContainsAny(rel, "\\\n") {
			return nil
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		image[prefix+rel] = &fstest.MapFile{Data: data, Mode: 0o644}
		return nil
	})
}
