package route_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sluice-deploy/sluice/nginxsync/route"
)

// BenchmarkCompare compares trees of 5,000 servers with 8 locations each, in which one location,
// and in "context" a map of all servers, differs.
func BenchmarkCompare(b *testing.B) {
	text := func(key, upstream string) map[string]string {
		var s strings.Builder
		fmt.Fprintf(&s, "http { map $http_x $pool { default web; %s beta; }\n", key)
		s.WriteString("proxy_set_header Host $host;\n")
		for i := range 5000 {
			fmt.Fprintf(&s, "server { listen 80; listen 443 ssl; server_name h%d.x *.h%d.x; "+
				"proxy_set_header X %d;\n", i, i, i)
			for j := range 8 {
				fmt.Fprintf(&s, "location /l%d/ { proxy_pass http://%s/a/; proxy_read_timeout "+
					"3s; }\n", j, upstream)
			}
			s.WriteString("location / { proxy_pass http://$pool; }\n}\n")
		}
		return map[string]string{"nginx.conf": s.String() + "}"}
	}
	old := treeOf(b, text("1", "web"))
	last := text("1", "web")
	last["nginx.conf"] = strings.Replace(last["nginx.conf"], "X 4711;", "X 1;", 1)
	for name, new := range map[string]map[string]string{"one": last, "context": text("2", "web"),
		"all": text("1", "new")} {
		tree := treeOf(b, new)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c := route.Compare(old, tree, 0)
				b.ReportMetric(float64(c.Changed), "changed")
				b.ReportMetric(float64(c.Undecided), "undecided")
			}
		})
	}
}
