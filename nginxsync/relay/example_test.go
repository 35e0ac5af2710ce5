package relay_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"net/netip"
	"sync"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/relay"
)

func Example() {
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()

	// On the host of the relay, any source: here one that the program sets.
	origin := nginxsync.NewStaticSource(nginxsync.Snapshot{
		Baseline: map[string][]nginxsync.Instance{"hello_web": {
			{ID: "i1", Addr: netip.MustParseAddrPort("10.0.0.7:8080"), Version: "v1"}}}})
	handler, err := relay.NewHandler(relay.HandlerConfig{Source: origin,
		Token: "0123456789abcdef"})
	if err != nil {
		fmt.Println(err)
		return
	}
	wg.Go(func() { _ = handler.Run(ctx) }) // its error is the context's cause
	server := httptest.NewTLSServer(handler)
	defer server.Close()
	defer server.CloseClientConnections()

	// On another host, the source of its agents.
	source, err := relay.New(relay.Config{URLs: []string{server.URL}, Client: server.Client(),
		Token: func() (string, error) { return "0123456789abcdef", nil }})
	if err != nil {
		fmt.Println(err)
		return
	}
	wg.Go(func() { _ = source.Run(ctx) })
	snapshot, _, err := source.Watch(ctx, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(snapshot.Baseline["hello_web"])
	// Output: [{i1 10.0.0.7:8080 0 v1 false}]
}
