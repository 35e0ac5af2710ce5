// Package route says, without an Nginx, where a request goes: which server, which location, which rewrites, which upstream,
// with the file and the line of each step.
//
// What the caller does: read the tree with package conf, ask with Explain, show the steps. For example:
//
//	answer, err := route.Explain(tree, route.Request{URL: "http://bj.example.com/api/list?page=2"})
//	for _, step := range answer.Steps {
//		fmt.Println(step)
//	}
//
// It follows listen, server_name, location, rewrite, return, if, set, break, map, proxy_pass and its relatives. What
// depends on more than the request (files on disk, Lua, subrequests, the time) is not guessed: the error is ErrUndecided and
// names the place. Regular expressions are Go's: one that only PCRE understands is ErrUndecided too. Access rules, limits and
// caches are not looked at.
package route
