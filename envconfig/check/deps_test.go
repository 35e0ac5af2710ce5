package check

import (
	"testing"

	"github.com/sluice-deploy/sluice/internal/depcheck"
)

func TestTheParsersAreTheOnlyForeignImports(t *testing.T) {
	t.Parallel()
	depcheck.Allow(t, "github.com/sluice-deploy/sluice/envconfig/check",
		[]string{"go.yaml.in/yaml/v3", "github.com/BurntSushi/toml"}, "net/http", "crypto/tls")
}
