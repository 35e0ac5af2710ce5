package envconfig

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/names/namestest"
)

func TestEnvironmentNames(t *testing.T) {
	t.Parallel()
	t.Run("scan", func(t *testing.T) {
		t.Parallel()
		namestest.Run(t, namestest.Environment, func(name string) error {
			_, err := Scan(fstest.MapFS{"envs/" + name + "/etc/app": {}, "envs/test/etc/app": {}})
			return err
		}, "empty", "slash", "dot only", "parent directory", "path upwards", "begins with dot")
	})
	t.Run("spec", func(t *testing.T) {
		t.Parallel()
		namestest.Run(t, namestest.Environment, func(name string) error {
			data, err := json.Marshal(Spec{Default: name, Live: []string{"production"}})
			require.NoError(t, err)
			_, err = ParseSpec(data)
			return err
		}, "empty")
	})
	t.Run("select", func(t *testing.T) {
		t.Parallel()
		namestest.Run(t, namestest.Environment, func(name string) error {
			m := &Manifest{Environments: map[string]*Environment{
				name: {Name: name, Files: []File{{Path: "etc/app"}}},
			}}
			_, err := m.Select(name)
			return err
		}, "ends with hyphen") // see TestStoredEnvironmentNames
	})
}

// A manifest from before names could not end in a hyphen is read, and its environments selected:
// the image that it is in has to start.
func TestStoredEnvironmentNames(t *testing.T) {
	t.Parallel()
	m, err := Scan(fstest.MapFS{
		"envs/test0/etc/app":      {Data: []byte("x")},
		"envs/production/etc/app": {Data: []byte("x")},
	})
	require.NoError(t, err)
	rename := func(m *Manifest, to string) *Manifest {
		env := *m.Environments["test0"]
		env.Name = to
		return &Manifest{Environments: map[string]*Environment{
			to: &env, "production": m.Environments["production"],
		}, Required: m.Required}
	}
	for _, name := range []string{"test-", "test--", "default-", strings.Repeat("a", 31) + "-"} {
		old, err := ParseManifest(rename(m, name).JSON())
		require.NoError(t, err, name)
		for _, environment := range []string{name, "production"} {
			_, err = old.Select(environment)
			require.NoError(t, err, name)
		}
	}
	for _, name := range []string{"-", "Test-", "te_st-", "-test-", strings.Repeat("a", 32) + "-"} {
		_, err := ParseManifest(rename(m, name).JSON())
		require.ErrorIs(t, err, ErrInvalid, name)
	}
	_, err = Scan(fstest.MapFS{"envs/test-/etc/app": {}})
	require.ErrorContains(t, err, `environment "test-": byte 5 is '-'`)
}
