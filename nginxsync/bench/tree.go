package bench

import (
	"fmt"
	"strings"
)

// Tree is a configuration of the given size in one file, with the habits of a grown one: comments,
// regular expressions, quotes, headers, caches.
func Tree(servers, upstreams int) string {
	var b strings.Builder
	b.WriteString("user www-data;\nevents { worker_connections 1024; }\nhttp {\n    " +
		"server_names_hash_max_size 65536;\n    server_names_hash_bucket_size 128;\n" +
		"    variables_hash_max_size 4096;\n    log_format main '$remote_addr - [$time_local] " +
		"\"$request\" $status';\n    access_log off;\n")
	for i := range upstreams {
		fmt.Fprintf(&b, "    upstream cluster_%d {\n        # rack %d\n        server "+
			"10.%d.%d.1:8080 max_fails=3;\n        server 10.%d.%d.2:8080 weight=2;\n        "+
			"keepalive 16;\n    }\n",
			i, i%40, i/250%250, i%250, i/250%250, i%250)
	}
	for i := range servers {
		u := i % upstreams
		fmt.Fprintf(&b, `    server {
        listen 80;
        server_name city%d.example.com *.city%d.example.com;   # city %d

        location / {
            proxy_set_header Host $host;
            proxy_pass http://cluster_%d;
        }
        location ~ "^/list/(\d+)\.html$" {
            add_header X-Page "list $1";
            proxy_pass http://cluster_%d;
        }
        location /api/ { proxy_pass http://cluster_%d/v1/; }
        rewrite ^/old/(.*)$ /new/$1 last;
    }
`, i, i, i, u, (u+1)%upstreams, (u+2)%upstreams)
	}
	b.WriteString("}\n")
	return b.String()
}
