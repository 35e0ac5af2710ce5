// Package testca is the certificate authority of a test Nginx: production's host names get
// certificates that browsers accept once their users trust the authority, and production's keys
// stay where they are.
//
// An authority that a tester trusts counts for every site, unless it says otherwise. This one
// says in a critical name constraint (RFC 5280, section 4.2.1.10) that it signs for the domains of
// the mirrored tree alone, and for no IP address. Its certificates live 90 days at most, and each
// is for the names of one server block.
package testca
