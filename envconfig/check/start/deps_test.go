package start

import (
	"testing"

	"github.com/sluice-deploy/sluice/internal/depcheck"
)

func TestForeignImports(t *testing.T) {
	t.Parallel()
	depcheck.Allow(t, "github.com/sluice-deploy/sluice/envconfig/check/start",
		[]string{"go.yaml.in/yaml/v3",
			"github.com/BurntSushi/toml", "mvdan.cc/sh/v3/syntax", "mvdan.cc/sh/v3/fileutil"},
		"net/http", "crypto/tls")
}
