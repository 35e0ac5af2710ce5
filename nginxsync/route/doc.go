// Package route finds, without an Nginx, the route of a request: server, location, rewrites and
// upstream, with the file and the line of each step.
//
// The caller's steps: read the tree with package conf, ask with Explain, show the steps. For
// example:
//
//	answer, err := route.Explain(tree, route.Request{URL: "http://bj.example.com/api/list?page=2"})
//	for _, step := range answer.Steps {
//		fmt.Println(step)
//	}
//
// A Router answers many requests to one tree. Compare lists the hosts and locations whose requests
// go elsewhere in another tree.
//
// It follows listen, server_name, location, internal, limit_except, set_real_ip_from, allow, deny,
// auth_basic, satisfy, rewrite, return, if, set, break, map, geo, split_clients, error_page, try_files, index,
// root, alias, proxy_pass and its relatives. A result that depends on more than the request (Lua,
// the time, files on disk unless Request.Disk has them) is not guessed: the error is ErrUndecided
// and names the place. Regular expressions are matched by PCRE's rules; syntax that the matcher
// does not know, such as recursion, is ErrUndecided.
//
// Conditions outside of the configuration and the request are in Answer.Unless: passwords, the
// answers of auth_request and of upstreams (error_page with proxy_intercept_errors,
// X-Accel-Redirect). The requests that Nginx makes beside the one that is asked are in
// Answer.Beside. Not looked at: limits and caches.
package route
