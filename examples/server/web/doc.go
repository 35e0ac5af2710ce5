// Package web is the example server's HTTP side: a JSON API below /api/v1, described by /api/v1/openapi.json, and a page
// for people at /. Errors are application/problem+json (RFC 9457).
//
// A request is answered when it comes with the token, as "Authorization: Bearer" or as the cookie that the page's login
// sets, or when no token is asked for, which New allows for loopback names only. Requests from other sites are refused
// (http.CrossOriginProtection), and so are Host headers that are not this server's, against DNS rebinding.
package web
