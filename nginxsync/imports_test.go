package nginxsync_test

import (
	"testing"

	"github.com/sluice-deploy/sluice/internal/depcheck"
)

// The routes know nothing of configuration trees, and transform nothing of routes.
func TestImports(t *testing.T) {
	t.Parallel()
	const path = "github.com/sluice-deploy/sluice/nginxsync"
	depcheck.StdlibOnly(t, path, path+"/conf", path+"/transform", path+"/bundle", path+"/mirror")
	depcheck.StdlibOnly(t, path+"/conf", path)
	depcheck.StdlibOnly(t, path+"/route", path)
	depcheck.StdlibOnly(t, path+"/transform", path, path+"/bundle", path+"/mirror")
	depcheck.StdlibOnly(t, path+"/bundle", path, path+"/transform", path+"/mirror")
	depcheck.StdlibOnly(t, path+"/mirror")
	depcheck.StdlibOnly(t, path+"/healthcheck", path+"/luadriver", path+"/agenthttp")
	depcheck.StdlibOnly(t, path+"/door", path, path+"/conf", path+"/transform")
	depcheck.StdlibOnly(t, path+"/hosts", path+"/luadriver", path+"/mirror")
	depcheck.StdlibOnly(t, path+"/luadriver", path+"/bundle", path+"/mirror")
}
