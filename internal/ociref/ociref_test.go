package ociref_test

import (
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/sluice-deploy/sluice/internal/names"
	"github.com/sluice-deploy/sluice/internal/names/namestest"
	"github.com/sluice-deploy/sluice/internal/ociref"
)

func TestPlatform(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ given, want v1.Platform }{
		{v1.Platform{}, v1.Platform{OS: "linux", Architecture: runtime.GOARCH}},
		{v1.Platform{Architecture: "s390x"}, v1.Platform{OS: "linux", Architecture: "s390x"}},
		{v1.Platform{OS: "windows"}, v1.Platform{OS: "windows", Architecture: runtime.GOARCH}},
		{v1.Platform{OS: "linux", Architecture: "arm", Variant: "v7"},
			v1.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}},
	} {
		if got := ociref.Platform(tc.given); !got.Equals(tc.want) {
			t.Errorf("Platform(%v) = %v, want %v", tc.given, got, tc.want)
		}
	}
}

func TestInsecure(t *testing.T) {
	t.Parallel()
	insecure := []string{"registry.example.com:5000"}
	for reference, scheme := range map[string]string{
		"registry.example.com:5000/app": "http",
		"registry.example.com/app":      "https",
		"registry.example.com:5001/app": "https",
		"127.0.0.1:5000/app":            "http",
		"10.1.2.3:5000/app":             "http",
	} {
		repository, err := name.NewRepository(reference, ociref.NameOptions(insecure, reference)...)
		if err != nil || repository.Scheme() != scheme {
			t.Errorf("%s: scheme %s (%v), want %s", reference, repository.Scheme(), err, scheme)
		}
	}
	bad := []string{"registry.example.com", "", "http://registry", "registry/app", "127.0.0.1:5000",
		"a b"}
	var got []string
	for _, err := range ociref.CheckInsecure("Config.Insecure", bad) {
		got = append(got, err.Error()[:len("Config.Insecure[0]")])
	}
	if want := "Config.Insecure[1] Config.Insecure[2] Config.Insecure[3] Config.Insecure[5]"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

// TestNames holds the grammars of names to the reference parser that the engines use.
func TestNames(t *testing.T) {
	t.Parallel()
	for _, s := range namestest.Samples() {
		if names.Cluster(s.Name) == nil {
			if _, err := name.NewRepository("registry.example.com/team/"+s.Name,
				name.StrictValidation); err != nil {
				t.Errorf("cluster %q is no repository: %v", s.Name, err)
			}
		}
		if names.Version(s.Name) == nil {
			if _, err := name.NewTag("registry.example.com/team/app:"+s.Name,
				name.StrictValidation); err != nil {
				t.Errorf("version %q is no tag: %v", s.Name, err)
			}
		}
	}
}
