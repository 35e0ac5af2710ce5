// Package rfc2136 gives each leased address names in a zone of a DNS server, by dynamic update (RFC
// 2136) signed with TSIG (RFC 8945), and takes them away when the lease ends.
//
//	d, err := rfc2136.New(rfc2136.Config{
//		Server: "192.0.2.53:53", Zone: "test.example.com", Owner: "sluice-test",
//		Key: rfc2136.Key{Name: "sluice", Secret: "c2VjcmV0…"},
//	})
//	// ...
//	go (&provision.Keeper{Allocator: a, Driver: d}).Run(ctx) // T-1 is t-1.test.example.com
//
// A name that the driver has made carries a TXT record that says so, with the owner of the driver.
// The driver changes and removes only names with that record; a name of another owner is left as it
// is, and its address set aside. The first call of the driver transfers the zone (AXFR) to find the
// names that an earlier process has left. The server therefore allows the key both: in BIND
// "allow-update" or "update-policy", and "allow-transfer".
//
// Beside the names, the driver keeps one TXT record in the zone, below _sluice, with a value that
// each update demands and that each start of a driver changes. So the server refuses an update that
// reaches it late, after the driver has gone on without its answer, or from a process that was
// thought to be gone. There is one driver of an owner at a time.
//
// Production names lead testers to a task's address in a view of their own: a server that answers
// those testers, or a zone of a BIND view that the key selects. Such a view has a driver of its
// own, whose Config.Names returns the production names of a lease.
//
// A Switch keeps a CNAME at the first healthy of several sites.
package rfc2136
