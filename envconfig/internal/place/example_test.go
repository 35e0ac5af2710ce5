package place_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/sluice-deploy/sluice/envconfig/internal/place"
)

// texts are contents that are in memory.
type texts []string

func (c texts) Open(i int) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(c[i])), nil
}

func (c texts) Mismatch(i int) error { return fmt.Errorf("text %d has changed", i) }

func Example() {
	dir, err := os.MkdirTemp("", "place")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	root, err := os.OpenRoot(dir)
	if err != nil {
		panic(err)
	}
	t := place.NewTree(root)
	defer t.Close()

	contents := texts{"port=80\n"}
	files := []place.File{{
		Path:   "etc/app.conf",
		Mode:   0o640,
		Size:   int64(len(contents[0])),
		SHA256: fmt.Sprintf("%x", sha256.Sum256([]byte(contents[0]))),
	}}
	if err := replace(context.Background(), t, files, contents); err != nil {
		panic(err)
	}
	data, err := root.ReadFile("etc/app.conf")
	fmt.Printf("%s%v\n", data, err)
	// Output:
	// create etc/app.conf
	// port=80
	// <nil>
}

func replace(ctx context.Context, t *place.Tree, files []place.File, contents texts) error {
	unlock, err := place.Lock(ctx, t, files[0].Path)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := place.Recover(t, []string{".", "etc"}, nil); err != nil {
		return err
	}
	plan, err := place.Diff(t, files, nil, nil)
	if err != nil {
		return err
	}
	for _, o := range plan.Ops {
		fmt.Println(o.Kind, o.Path)
	}
	tx := place.Transaction{Targets: t, Contents: contents}
	if err := tx.Run(ctx, plan); err != nil {
		return err
	}
	return tx.Finish()
}
