package envconfig_test

import (
	"testing"

	"github.com/sluice-deploy/sluice/internal/depcheck"
)

func TestRuntimePartLinksTheStandardLibraryOnly(t *testing.T) {
	t.Parallel()
	for _, pkg := range []string{
		"envconfig", "envconfig/entry", "envconfig/cmd/envconfig",
		"envconfig/internal/place", "envconfig/internal/fastjson", "envconfig/internal/caught",
		"envconfig/internal/nearest", "envconfig/internal/signame",
	} {
		depcheck.StdlibOnly(t, "github.com/sluice-deploy/sluice/"+pkg, "net/http", "crypto/tls",
			"text/template", "html/template", "os/exec", "regexp")
	}
}
