package route_test

import (
	"fmt"
	"testing/fstest"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/route"
)

func Example() {
	tree, err := conf.Parse(fstest.MapFS{"nginx.conf": {Data: []byte(`http {
    upstream greet_api { server 10.0.0.1; }
    server {
        listen 80;
        server_name *.example.com;
        location /api/ {
            proxy_pass http://greet_api/v1/;
        }
    }
}
`)}}, "nginx.conf")
	if err != nil {
		fmt.Println(err)
		return
	}
	answer, err := route.Explain(tree, route.Request{URL: "http://bj.example.com/api/list?page=2"})
	for _, step := range answer.Steps {
		fmt.Println(step)
	}
	fmt.Println(answer.Upstream, answer.URI, err)
	// Output:
	// nginx.conf:5: server_name *.example.com matches the host
	// nginx.conf:6: location /api/, the longest prefix of the path
	// nginx.conf:7: proxy_pass to greet_api, asked for /v1/list?page=2
	// greet_api /v1/list?page=2 <nil>
}
