// Package web is the example server's HTTP side: a JSON API below /api/v1, described by
// /api/v1/openapi.json, and a page for people at /. Errors are application/problem+json (RFC 9457).
//
// A request is answered when it comes with the token, as "Authorization: Bearer" or as the cookie
// that the page's login sets, or when no token is asked for, which New allows on loopback addresses
// only. Requests from other sites are refused (http.CrossOriginProtection), and on a loopback
// address so are Host headers of other names, against DNS rebinding. The server speaks plain HTTP:
// on any other address it belongs behind a proxy that speaks TLS. A session ends when the token
// changes.
package web
