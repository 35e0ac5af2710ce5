package mirror_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/bundle"
	"github.com/sluice-deploy/sluice/nginxsync/mirror"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// paperNginx stands for an Nginx with one worker that runs on the tree at its last reload.
type paperNginx struct {
	dir, tree string
	pid       int
}

func (n *paperNginx) Test(context.Context, string) error { return nil }
func (n *paperNginx) Errors() string                     { return "" }
func (n *paperNginx) Workers() ([]int, int, error)       { return []int{n.pid}, 0, nil }

func (n *paperNginx) Reload(context.Context) (err error) {
	n.pid++
	n.tree, err = os.Readlink(filepath.Join(n.dir, "current"))
	return err
}

func (n *paperNginx) Apply(context.Context, nginxsync.Delta) error { return nil }

func (n *paperNginx) Routes(context.Context) (nginxsync.Routes, error) {
	return nginxsync.Routes{}, nil
}

func (n *paperNginx) State(context.Context) (nginxsync.DriverState, error) {
	return nginxsync.DriverState{Workers: []nginxsync.Worker{{PID: n.pid, Tree: n.tree}}}, nil
}

func ExampleMirror_Sync() {
	dir, err := os.MkdirTemp("", "trees")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	nginx := &paperNginx{dir: dir, pid: 100}
	m, err := mirror.New(mirror.Config{
		Source: &bundle.DirSource{}, Nginx: nginx, Driver: nginx, Dir: dir,
		Rules:       transform.Rules{Listen: map[int]int{80: 8080}},
		MinInterval: time.Millisecond, Watch: time.Millisecond,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, text := range []string{"http { server { listen 80; } }",
		"http { server { listen 81; } }"} {
		b, err := bundle.New(map[string]bundle.File{"nginx.conf": {Mode: 0o644, Text: text}},
			bundle.Limits{})
		if err == nil {
			err = m.Sync(context.Background(), b)
		}
		fmt.Println("error:", err)
	}
	fmt.Println("runs on the last good tree:", m.Status().Tree == nginx.tree)
	// Output:
	// error: <nil>
	// error: nginx.conf:1:17: listen 81: port 81 is not in the rules under listen
	// runs on the last good tree: true
}
