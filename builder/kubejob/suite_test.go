//go:build linux

package kubejob_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/sluice-deploy/sluice/builder/enginetest"
	"github.com/sluice-deploy/sluice/internal/soak"
)

// TestSuite holds the engine to the contract of builder.Engine.
func TestSuite(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.config.Logs = nil
	e := b.engine(t)
	enginetest.Run(t, func(t *testing.T) enginetest.Harness {
		return enginetest.Harness{Engine: e, RunBase: b.base, Slow: !soak.Whole(),
			Registry: b.proxy.Addr + "/" + regexp.MustCompile(`[^a-z]+`).ReplaceAllString(
				strings.ToLower(t.Name()), "-")}
	})
}
