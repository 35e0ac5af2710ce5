package ocilogs_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"strings"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/sluice-deploy/sluice/builder/builds/ocilogs"
)

func Example() {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	logs, err := ocilogs.New(ocilogs.Config{
		Repository: strings.TrimPrefix(server.URL, "http://") + "/platform/logs"})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	if err := logs.AppendLog(ctx, "hello_web-v2", 0, []byte("[1/2] FROM base\n")); err != nil {
		log.Fatal(err)
	}
	text, size, err := logs.ReadLog(ctx, "hello_web-v2", 0, 1<<20)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d bytes: %s", size, text)
	// Output: 16 bytes: [1/2] FROM base
}
