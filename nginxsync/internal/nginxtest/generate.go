//go:build linux

package nginxtest

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// Sample is a generated configuration of the http context, and requests that reach into its
// corners.
type Sample struct {
	Servers   string   // server blocks that listen on port 80
	Upstreams []string // names that the servers pass to; the caller writes their blocks
	Requests  []Request
}

// Request is one request of a sample. Kind is the value of the header X-Kind.
type Request struct{ Host, Path, Kind string }

var (
	hosts = []string{"bj.city.example", "sh.city.example", "gz.city.example", "www.city.example",
		"m.bj.city.example", "api.example", "www.api.example", "other.test", "city.example",
		"x12.shop.example", "BJ.city.example"}
	names = []string{"bj.city.example", "*.city.example", ".api.example", "www.*",
		"~^x(?<n>\\d+)\\.shop\\.example$", "~city", "city.example", "m.bj.city.example", `""`}
	parts = []string{"/", "/a", "/a/", "/a/b", "/a/b/", "/list", "/list/", "/img/", "/old/",
		"/new/", "/A/", "/index.php", "/x.jpg", "/a%20b"}
	exprs = []string{`\.php$`, `^/a/`, `\.(jpg|png)$`, `^/list/(\d+)`, `^/(?<kind>old|new)/(.*)$`,
		`b`}
)

// Generate makes a sample out of the random numbers.
func Generate(r *rand.Rand) Sample {
	g := &generator{r: r, s: Sample{Upstreams: []string{"one", "two", "three"}}}
	used := map[string]bool{}
	for i := range 2 + r.IntN(4) {
		var mine []string
		for range 1 + r.IntN(3) {
			if n := pick(r, names); !used[n] {
				used[n] = true
				mine = append(mine, n)
			}
		}
		g.server(i, mine)
	}
	for _, h := range hosts {
		for range 6 {
			path := pick(r, parts)
			for range r.IntN(3) {
				path += pick(r, []string{"/", "", "b", "12", ".php", ".jpg", "?q=1&r=%2F", "%41",
					"//", "/../a", "/./", "list"})
			}
			g.s.Requests = append(g.s.Requests, Request{Host: h, Path: path})
		}
	}
	g.s.Servers = g.b.String()
	return g.s
}

type generator struct {
	r *rand.Rand
	b strings.Builder
	s Sample
}

func pick[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

func (g *generator) line(depth int, format string, args ...any) {
	g.b.WriteString(strings.Repeat("    ", depth))
	fmt.Fprintf(&g.b, format, args...)
	g.b.WriteByte('\n')
}

func (g *generator) server(i int, names []string) {
	g.line(0, "server {")
	flag := ""
	if i == 1 {
		flag = " default_server"
	}
	g.line(1, "listen 80%s;", flag)
	if len(names) > 0 {
		g.line(1, "server_name %s;", strings.Join(names, " "))
	}
	if g.r.IntN(4) == 0 {
		g.line(1, "proxy_set_header X-Server s%d;", i)
	}
	if g.r.IntN(3) == 0 {
		g.line(1, "rewrite ^/old/(.*)$ %s last;",
			pick(g.r, []string{"/new/$1", "/a/$1?x=1", "/$1?"}))
	}
	if g.r.IntN(4) == 0 {
		g.line(1, "rewrite ^/a/b/?$ /list/7 break;")
	}
	if g.r.IntN(4) == 0 {
		g.line(1, "merge_slashes off;")
	}
	g.locations(1, "", 2+g.r.IntN(6))
	if g.r.IntN(2) == 0 {
		g.location(1, "/", "", 0)
	}
	g.line(0, "}")
}

// locations writes up to n locations whose prefixes begin with prefix, no two with the same
// pattern.
func (g *generator) locations(depth int, prefix string, n int) {
	used := map[string]bool{}
	for range n {
		modifier, pattern := "", prefix+pick(g.r, parts[1:13])
		switch g.r.IntN(5) {
		case 0:
			modifier = "= "
		case 1:
			modifier = "^~ "
		case 2:
			modifier, pattern = pick(g.r, []string{"~ ", "~* "}), pick(g.r, exprs)
		}
		key := strings.TrimPrefix(modifier, "^~ ") + pattern
		if used[key] {
			continue
		}
		used[key] = true
		g.location(depth, modifier+pattern, pattern, modifierDepth(modifier))
	}
}

func modifierDepth(modifier string) int {
	if modifier == "" || modifier == "^~ " {
		return 1 // may have locations inside
	}
	return 0
}

func (g *generator) location(depth int, head, prefix string, inside int) {
	regex := strings.HasPrefix(head, "~")
	g.line(depth, "location %s {", head)
	if g.r.IntN(5) == 0 {
		g.line(depth+1, "add_header X-Loc l%d;", g.r.IntN(100))
	}
	if g.r.IntN(5) == 0 {
		g.line(depth+1, "proxy_set_header Host $host;")
	}
	if g.r.IntN(6) == 0 {
		g.line(depth+1, "rewrite ^/a(.*)$ /new$1 %s;", pick(g.r, []string{"last", "break"}))
	}
	switch g.r.IntN(12) {
	case 0:
		g.line(depth+1, "return %d;", pick(g.r, []int{204, 403, 404}))
	case 1:
		g.line(depth+1, "return 302 /moved;")
	default:
		uri := pick(g.r, []string{"", "", "", "/", "/in/", "/in", "/in/?k=v"})
		if regex {
			uri = ""
		}
		g.line(depth+1, "proxy_pass http://%s%s;", pick(g.r, g.s.Upstreams), uri)
	}
	if inside > 0 && depth < 3 && prefix != "" && g.r.IntN(4) == 0 {
		g.locations(depth+1, strings.TrimSuffix(prefix, "/"), 2)
	}
	g.line(depth, "}")
}
