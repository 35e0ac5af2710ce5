//go:build linux

package route_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// pair is one request of a generated configuration.
type pair struct {
	method, host, path string
	cookies            []string
	header             [2]string // one more of the request, by name and value
}

// generated makes the http context of a configuration whose files are below root, and requests that
// reach into its corners.
type generated struct {
	r     *rand.Rand
	b     strings.Builder
	pairs []pair
}

func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

func (g *generated) chance(percent int) bool { return g.r.IntN(100) < percent }

func (g *generated) line(format string, args ...any) { fmt.Fprintf(&g.b, format+"\n", args...) }

// files are below the root of each generated configuration.
var files = []string{"index.html", "a.txt", "b/index.html", "b/c.txt", "app/index.php", "d/e/f.txt",
	"a b.txt", "é.txt", "x/index.txt", "404.html"}

// exprs are expressions of locations and rewrites, that of the first ones no engine of Go's own
// kind has.
var exprs = []string{
	`^/look/(?!api)(\w+)`, `^/look/(?=a)(\w*?)\Z`, `^/look/(?<!b)x\b(.*)\Z`,
	`^(?!/(?:a|b|look|tf|ep))/(\w+)/(.*)$`, `(?<=/look/)api(.*)$`, `^/look/(?>a+)b`,
	`^/look/(\w)\1`,
	`^/n/(\d+)$`, `\.(txt|php)$`, `^/n/(?<kind>[a-c]+)/(.*)$`, `^/n/x$`, `^/n/.$`,
}

func generate(r *rand.Rand, root string) *generated {
	g := &generated{r: r}
	g.line(`map $uri $mapped { default one; ~^/look/(?!a)\w two; "~*^/N/X\Z" three; }
map $host $wildname { hostnames; default none; .w.x wild; }
geo $net { default far; 127.0.0.0/8 loop; 127.0.0.1 near; 10.0.0.0/8 ten; }
geo $arg_ip $byip { default far; 10.0.0.0/8 ten; 10.1.0.0/16 eleven; ::/0 six; }
split_clients "${arg_s}" $share { 25%% one; 12.5%% two; * three; }`)
	g.line("root %s;", root)
	if g.chance(30) {
		g.line("error_page 404 /404.html;")
	}
	for i, host := range []string{"a.x", "b.x"} {
		g.server(i, host, root)
	}
	for range 100 {
		g.pairs = append(g.pairs, g.pair())
	}
	return g
}

func (g *generated) pair() pair {
	p := pair{method: "GET", host: pick(g.r, "a.x", "b.x", "a.x", "c.x", "s.w.x")}
	if g.chance(8) {
		p.method = pick(g.r, "POST", "PUT", "HEAD", "DELETE")
	}
	p.path = pick(g.r, "/look/", "/look/", "/n/", "/tf/", "/tf/", "/tf/", "/ep/", "/ep/", "/", "/",
		"/b/", "/in/", "/le/", "/al/", "/v/", "/if/", "/redir/", "/dir", "/ac/", "/ac/", "/ifs/",
		"/ch/", "/ch/", "/ne/", "/ne/", "/fi/", "/rx/", "/rx/", "/al2/", "/st", "/look/", "/tf/",
		"/tf/")
	for range 1 + g.r.IntN(3) {
		p.path += pick(g.r, "a", "b", "x", "api", "ab", "1", "12", "/", "a.txt", "c.txt",
			"index.html", "f.php", "index.php", "..", "//", "b/", "d", "aab", "aa")
		if g.chance(12) {
			p.path += pick(g.r, "%41", "%0a", "%20", "%25", "%C3%A9", "%22", "\"", "é", "+", "%2f",
				"%3F", "%23", "{", "%7b")
		}
	}
	if g.chance(30) {
		p.path += "?" + pick(g.r, "s=abc", "s=x1", "s=zz9", "ip=10.1.2.3", "ip=10.9.9.9", "ip=zz",
			"q=%41%2f", "k=1&q=2", "q=%0a", "e=1", "e=2", "q=\"é\"", "s=%41&k=+")
	}
	if g.chance(5) {
		p.cookies = pick(g.r, []string{"k=1"}, []string{"a=b", "k=2"}, []string{"a=b; k=3"})
	}
	return p
}

func (g *generated) server(i int, host, root string) {
	flag := ""
	if i == 1 && g.chance(50) {
		flag = " default_server"
	}
	g.line("server {\n    listen 80%s;\n    server_name %s%s;", flag, host,
		pick(g.r, "", " *.w.x", ` ~^(?!a)c\.x\Z`))
	if g.chance(15) {
		g.line("    rewrite %s /n/%d/$1 last;", quote(pick(g.r, exprs[:8]...)), g.r.IntN(9))
	}
	if g.chance(15) {
		g.line("    error_page 403 404 = @fall;")
	}
	if g.chance(10) {
		g.line("    index index.php %s;", pick(g.r, "index.html", "index.txt", "/n/x"))
	}
	g.line("    location @fall { proxy_pass http://two%s; }", pick(g.r, "", "$request_uri",
		"/f$uri"))
	g.line("    location @other { %s proxy_pass http://three; }",
		pick(g.r, "", "rewrite ^/tf/(.*)$ /o/$1 break;"))
	g.line("    location ~ \\.php$ { %s }", pick(g.r, "proxy_pass http://one;",
		"internal; proxy_pass http://two;", "return 200 php;"))
	used := map[string]bool{}
	for range 3 {
		if e := pick(g.r, exprs...); !used[e] {
			used[e] = true
			g.line("    location %s %s { %s }", pick(g.r, "~", "~", "~*"), quote(e),
				pick(g.r, "proxy_pass http://one;", "proxy_pass http://two/r/$1;",
					"return 302 /go/$1;", "proxy_pass http://$mapped;"))
		}
	}
	g.line("    location %s/tf/ { try_files %s; %s }", pick(g.r, "", "^~ "),
		pick(g.r, "$uri $uri/ =404", "$uri /index.html", "$uri $uri/ @fall", "$uri @other",
			"/a.txt =403", "$uri/ /n/x?$args", "/nothing @fall",
			"$uri $uri/ /app/index.php?q=$uri&$args", "/b/c.txt$arg_k $uri =404"),
		pick(g.r, "", "", "proxy_pass http://three;", "error_page 404 = @fall;",
			"if ($arg_e = 1) { set $x 1; }"))
	g.line("    location %s/ep/ { error_page %s; %s }", pick(g.r, "", "^~ "),
		pick(g.r, "404 = @fall", "418 = @other", "404 =200 /a.txt", "404 403 /n/x?e=$arg_k",
			"404 =301 http://elsewhere/$uri", "404 405 =410 /404.html", "302 = @fall"),
		pick(g.r, "", "", "if ($arg_e) { return 418; }", "return 404;", "return 404 text;",
			"return 302 /ep;", `if ($uri ~ "a\Z") { return 404; } proxy_pass http://one;`,
			"recursive_error_pages on; return 404;"))
	g.line("    location /in/ { internal; proxy_pass http://three; }")
	g.line("    location /le/ { limit_except %s { %s } %s }", pick(g.r, "GET", "GET POST", "HEAD"),
		pick(g.r, "deny all;", "proxy_pass http://two;", "proxy_pass http://two; "),
		pick(g.r, "proxy_pass http://one;", "rewrite ^ /n/1 break; proxy_pass http://one;",
			"proxy_pass http://one/le2/;"))
	g.line("    location /al/ { alias %s/b/; }", root)
	g.line("    location /v/ { %s }", pick(g.r, "proxy_pass http://$share;",
		"proxy_pass http://one/$byip/$net/$wildname/$share;",
		"proxy_pass http://$mapped$request_uri;", `return 302 "/x/$cookie_k/$byip";`,
		"proxy_pass http://one/$http_cookie;",
		`if ($http_host = "a.x:PORT") { return 302 /port; } proxy_pass http://one/$http_host/;`))
	g.line("    location /if/ { if (%s) { %s } %s }", pick(g.r, "-f $request_filename",
		"!-e $document_root$uri", "$uri ~ (?<!b)a", "$uri !~* \"\\.TXT\\Z\"",
		"$request_method = POST", "-d $document_root/b"),
		pick(g.r, "return 204;", "rewrite ^/if(.*)$ $1 last;", "proxy_pass http://two;",
			"rewrite ^ /a.txt break;"), pick(g.r, "proxy_pass http://one;", "try_files $uri =404;",
			""))
	g.line("    %s", pick(g.r, "", "absolute_redirect off;", "port_in_redirect off;",
		"server_name_in_redirect on;", "error_page 301 302 = @fall;"))
	g.line("    location /dir/ { %s proxy_pass http://one; }", pick(g.r, "", "internal;",
		"error_page 301 = @other;", "absolute_redirect off;"))
	g.line("    location /redir/ { %s rewrite ^/redir/(.*)$ %s; }", pick(g.r, "", "",
		"error_page 302 = @fall;", "absolute_redirect off;"), pick(g.r, "/t/$1 redirect",
		"/t/$1?a=$1 permanent", "http://x/$1 redirect", "/t/$uri? redirect", "/n/$1?c=$1 last",
		"/in/$1 last"))
	g.line("    location /ac/ { %s %s %s %s error_page 403 %s; error_page 401 = @other; %s }",
		pick(g.r, "", "satisfy any;", "satisfy all;"),
		pick(g.r, "", "", "allow 127.0.0.1; deny all;", "deny 127.0.0.0/8;", "deny all;",
			"allow 10.0.0.0/8;", "deny 10.0.0.0/8; allow all;", "allow 127.0.0.1/8; deny all;"),
		pick(g.r, "", "auth_basic x;", "auth_basic off; auth_basic_user_file f;",
			"auth_basic x; auth_basic_user_file f;",
			`auth_basic "$arg_k"; auth_basic_user_file f;`),
		pick(g.r, "", "", "recursive_error_pages on;", "proxy_intercept_errors on;"),
		pick(g.r, "= @fall", "/404.html", "=200 /a.txt", "=403 /n/x", "/ac/again"),
		pick(g.r, "proxy_pass http://one;", "try_files $uri @fall;", "return 204;", "",
			"if ($arg_k) { return 403; } proxy_pass http://one/k/;",
			"limit_except GET { allow 127.0.0.1; deny all; } proxy_pass http://two;"))
	g.line("    location /ifs/ { set $n 0; if ($arg_k) { set $n 1; %s } if ($arg_q) { set $n "+
		"2$n; %s } "+
		"if ($n = %s) { %s } %s }",
		pick(g.r, "", "proxy_pass http://two;", "break;", "rewrite ^/ifs/(.*)$ /n/$1;"),
		pick(g.r, "", "proxy_pass http://three;", "return 204;", "rewrite ^ /a.txt last;"),
		pick(g.r, "1", "2", "21", "20"), pick(g.r, "return 302 /n$n;", "break;", "",
			"proxy_pass http://two;"),
		pick(g.r, "proxy_pass http://one;", "proxy_pass http://one/x/;", "", "return 201;"))
	if g.chance(50) {
		g.line("    location / { %s }", pick(g.r, "proxy_pass http://one;",
			"proxy_pass http://one/base/;", "", "try_files $uri $uri/ @fall;",
			"try_files $uri =404;", "index index.txt index.html;"))
	}
	g.more(root)
	g.line("}")
}

func quote(e string) string { return `"` + strings.ReplaceAll(e, `\`, `\\`) + `"` }
