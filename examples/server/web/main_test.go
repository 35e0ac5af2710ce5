package web_test

import (
	"testing"

	"github.com/sluice-deploy/sluice/examples/server/servertest"
)

func TestMain(m *testing.M) { servertest.Main(m) }
