package sluice_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/sluice-deploy/sluice/envconfig"
	"github.com/sluice-deploy/sluice/promote"
)

// envconfig writes the label and manifest.json of an image, and promote reads both without
// importing it. These tests hold the two to the same key and the same form.

func TestConfigurationLabelKey(t *testing.T) {
	t.Parallel()
	if promote.ConfigLabel != envconfig.LabelKey {
		t.Errorf("promote reads the label %q, envconfig writes %q", promote.ConfigLabel,
			envconfig.LabelKey)
	}
}

// image returns the files of an image's source directory, with n files in each environment.
func image(spec string, n int) fstest.MapFS {
	files := fstest.MapFS{
		"envconfig.json":               {Data: []byte(spec)},
		"envs/_base/etc/all":           {},
		"envs/test/etc/only":           {},
		"envs/test/etc/\"quoted\\ \nü": {},
		"envs/production/etc/app":      {},
	}
	for i := range n {
		files[fmt.Sprintf("envs/test/opt/file-%d", i)] = &fstest.MapFile{}
		files[fmt.Sprintf("envs/production/opt/file-%d", i)] = &fstest.MapFile{}
	}
	return files
}

func TestConfigurationReadersAgree(t *testing.T) {
	t.Parallel()
	for name, files := range map[string]fstest.MapFS{
		"plain":            image(`{}`, 3),
		"required":         image(`{"required":["etc/app","etc/all","etc/none"]}`, 3),
		"pointer":          image(`{"paths":[{"match":"**","action":"pointer"}]}`, 3),
		"label cut short":  image(`{}`, 5000),
		"one environment":  {"envs/test/etc/app": {}},
		"empty one beside": {"envs/test/etc/app": {}, "envs/sandbox/.keep": {}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			scanned, err := envconfig.Scan(files)
			if err != nil {
				t.Fatal(err)
			}
			m, err := envconfig.ParseManifest(scanned.JSON())
			if err != nil {
				t.Fatal(err)
			}
			_, label := m.Label()
			for form, text := range map[string]string{"manifest": string(m.JSON()),
				"label": label} {
				c, err := promote.ParseConfiguration([]byte(text))
				if err != nil {
					t.Fatalf("%s: %v", form, err)
				}
				for _, environment := range append(m.Names(), "absent") {
					present, missing := c.Missing(environment)
					if want := m.Environments[environment] != nil; present != want {
						t.Errorf("%s: %s is present: %v, want %v", form, environment, present, want)
					}
					if want := m.Missing(environment); present && !slices.Equal(missing, want) {
						t.Errorf("%s: %s lacks %q, want %q", form, environment, missing, want)
					}
				}
			}
		})
	}
}

func TestConfigurationReadersRefuse(t *testing.T) {
	t.Parallel()
	m, err := envconfig.Scan(image(`{}`, 1))
	if err != nil {
		t.Fatal(err)
	}
	good := string(m.JSON())
	// withFile returns a manifest whose digest fits and that has one more file.
	withFile := func(path string) string {
		env := *m.Environments["test"]
		file := env.Files[0]
		file.Path = path
		env.Files = append(slices.Clone(env.Files), file)
		slices.SortFunc(env.Files, func(a, b envconfig.File) int {
			return strings.Compare(a.Path, b.Path)
		})
		other := envconfig.Manifest{Environments: map[string]*envconfig.Environment{"test": &env}}
		return string(other.JSON())
	}
	accepted := func(text string) (byEnvconfig, byPromote error) {
		_, byEnvconfig = envconfig.ParseManifest([]byte(text))
		_, byPromote = promote.ParseConfiguration([]byte(text))
		return byEnvconfig, byPromote
	}
	if ours, theirs := accepted(withFile("etc/more")); ours != nil || theirs != nil {
		t.Fatalf("a good path: %v, %v", ours, theirs)
	}
	for name, text := range map[string]string{
		"empty":             "",
		"garbage":           "garbage",
		"cut off":           good[:len(good)/2],
		"more after it":     good + "{}",
		"null":              "null",
		"array":             "[]",
		"later version":     strings.Replace(good, `"version": 1`, `"version": 2`, 1),
		"no version":        strings.Replace(good, `"version": 1,`, "", 1),
		"version as text":   strings.Replace(good, `"version": 1`, `"version": "1"`, 1),
		"absolute path":     withFile("/etc/passwd"),
		"path upwards":      withFile("../etc/passwd"),
		"path up inside":    withFile("etc/../../passwd"),
		"unclean path":      withFile("etc//app"),
		"slash at the end":  withFile("etc/app/"),
		"root":              withFile("."),
		"parent":            withFile(".."),
		"empty path":        withFile(""),
		"not UTF-8":         strings.Replace(good, "etc/only", "etc/\xff", 1),
		"files as a number": strings.Replace(good, `"files": [`, `"files": 1, "x": [`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ours, theirs := accepted(text)
			if ours == nil || theirs == nil {
				t.Errorf("envconfig says %v, promote says %v: want an error of both", ours, theirs)
			}
		})
	}
}
