//go:build linux

package route_test

// more adds locations within locations, errors of error pages, passes of another module in an if,
// and paths of files that are put together. Nothing answers for the
// upstream fcgi: 502.
func (g *generated) more(root string) {
	recursive := func() string {
		return pick(g.r, "", "", "recursive_error_pages on;", "recursive_error_pages off;")
	}
	g.line("    location /ch/ { error_page 404 %s; error_page 403 %s; %s %s }",
		pick(g.r, "/cg/x", "=200 /cg/y", "= @chain", "/cg/z?k=$arg_k"),
		pick(g.r, "/cg/no", "@chain", "=404 /cg/no"), recursive(),
		pick(g.r, "return 404;", "return 403;", "return 405;", "", "deny all;", "internal;"))
	g.line("    location /cg/ { %s %s %s }",
		pick(g.r, "", "error_page 404 /a.txt;", "error_page 404 403 = @other;",
			"error_page 500 /b/c.txt;", "error_page 404 =410 /cg/again;"), recursive(),
		pick(g.r, "return 404;", "return 403;", "", "internal;", "proxy_pass http://one;"))
	g.line("    location @chain { %s %s %s }", pick(g.r, "", "error_page 404 /a.txt;",
		"error_page 403 @other;"), recursive(), pick(g.r, "return 404;", "return 403;",
		"proxy_pass http://two;", "try_files $uri /b/c.txt =403;"))
	g.line("    location %s/ne/ { %s\n        location /ne/a { %s\n            location ~ b$ { %s "+
		"}\n        }\n        location ~ \\.txt$ { %s }\n        location ^~ /ne/api { %s }\n    "+
		"    location = /ne/x { %s }\n    }",
		pick(g.r, "", "^~ "), pick(g.r, "proxy_pass http://one;", "", "return 204;",
			"error_page 404 403 = @other;", "root /nonexistent;"),
		pick(g.r, "proxy_pass http://two;", "", "return 404;"),
		pick(g.r, "proxy_pass http://three/$uri;", "return 302 /nested;", ""),
		pick(g.r, "proxy_pass http://one;", "", "rewrite ^/ne/(.*)$ /$1 last;"),
		pick(g.r, "proxy_pass http://two/api/;", "deny all;"),
		pick(g.r, "return 201;", "proxy_pass http://three/q;", "try_files /b/c.txt =404;"))
	g.line("    location /fi/ { if ($arg_k) { %s } if ($arg_q) { %s } if ($arg_s) { %s } %s }",
		pick(g.r, "fastcgi_pass fcgi;", "proxy_pass http://two;"),
		pick(g.r, "set $y 1;", "fastcgi_pass fcgi;", "break;", "root /nonexistent;"),
		pick(g.r, "", "set $y 2;", "proxy_pass http://three;"),
		pick(g.r, "proxy_pass http://one;", "fastcgi_pass fcgi;", ""))
	g.line("    location ~ ^/rx/(?<first>[^/]*)(/?.*)$ { %s }", pick(g.r,
		"alias "+root+"/b/$first;", "alias "+root+"/$first$2;", "root "+root+"/$first;",
		"try_files /$first /b$2 @fall;", "rewrite ^/rx/(.*)$ /$1 last;",
		"rewrite ^/rx/(.*)$ /$1 break;", "proxy_pass http://two/$first$2;",
		"if ($first = a.txt) { return 302 /first; } proxy_pass http://one;",
		"set $first x; proxy_pass http://one/$first/$1;"))
	g.line("    location /al2/ { alias %s/; %s }", root, pick(g.r, "", "try_files $uri $uri/ =404;",
		"index c.txt index.html;", "try_files $uri @fall;", "if (-f $request_filename) { return "+
			"202; }",
		"error_page 404 403 /a.txt;"))
	g.line("    location /st { %s }", pick(g.r, "return 301;", "return 301 ../x;",
		"return http://$host/y;", "return 307 /z?$args;", `return 200 "text $uri";`,
		"return 444;", `return 403 "no";`, "return 400;"))
	if g.chance(20) {
		g.line("    %s", pick(g.r, "if ($arg_ip = zz) { return 302 /zz; }",
			"if ($request_method = PUT) { rewrite ^ /n/7 break; }",
			"set $v one; if ($arg_e = 2) { set $v two; }",
			"rewrite ^/b/(.*)$ /al/$1 break;", "if ($request_uri ~ //) { return 410; }",
			"merge_slashes off;", "if ($http_cookie ~ k=2) { rewrite ^/(.*)$ /in/$1; }"))
	}
}
