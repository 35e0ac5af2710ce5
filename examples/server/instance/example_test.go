package instance_test

import (
	"context"
	"fmt"
	"os"

	"github.com/sluice-deploy/sluice/examples/server/instance"
)

func Example() {
	dir, _ := os.MkdirTemp("", "")
	defer os.RemoveAll(dir)
	runtime, err := instance.Open(context.Background(), instance.Config{Dir: dir})
	if err != nil {
		panic(err)
	}
	_, err = runtime.Start(context.Background(), instance.Spec{ID: "web-1",
		Image: "127.0.0.1:5800/hello_web:v1"})
	fmt.Println(err)
	// Output: instance web-1: image "127.0.0.1:5800/hello_web:v1": expected a reference by digest: a digest must contain exactly one '@' separator (e.g. registry/repository@digest) saw: 127.0.0.1:5800/hello_web:v1
}
