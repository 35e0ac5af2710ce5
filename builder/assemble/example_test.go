package assemble_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"strings"
	"testing/fstest"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/assemble"
)

func Example() {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()

	engine, _ := assemble.New(assemble.Config{})
	request := builder.Request{
		Dockerfile: []byte("FROM scratch\nCOPY --chmod=0755 app /app\nUSER 65532\nENTRYPOINT " +
			"[\"/app\"]\n"),
		Context:    fstest.MapFS{"app": {Data: []byte("#!")}}, // as a rule os.Root.FS
		Repository: strings.TrimPrefix(server.URL, "http://") + "/hello_web",
		Tag:        "v1",
	}
	first, err := engine.Build(context.Background(), request)
	if err != nil {
		fmt.Println(err)
		return
	}
	again, err := engine.Build(context.Background(), request)
	fmt.Println("same digest:", first.Digest == again.Digest, "sent again:", again.Uploaded, err)

	request.Context = fstest.MapFS{"app": {Data: []byte("#!/bin/other")}}
	_, err = engine.Build(context.Background(), request)
	fmt.Println("tag moved:", err == nil, "exists:", errors.Is(err, builder.ErrTagExists))
	// Output:
	// same digest: true sent again: 0 <nil>
	// tag moved: false exists: true
}
