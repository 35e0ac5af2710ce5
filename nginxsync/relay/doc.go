// Package relay passes the snapshots of a source on to agents on other hosts, so that one process
// follows Consul and the leases for all of them: a Handler serves them over HTTP, and a Source
// follows a Handler.
//
// Steps for the embedder, on the host of the relay:
//
//  1. make a Handler of the source that the agents there watch;
//  2. call Run, and serve the handler over TLS, without a limit of the time of an answer.
//
// And on each other host:
//
//  3. make a Source with the URLs of one or more relays, and the token;
//  4. call Run, and give the source to the agents;
//  5. set Config.Fallback where the host may follow Consul itself while no relay answers.
//
// A follower gets all once, and then the changes. After a lost connection it goes on where it was,
// unless the relay has started again or no longer has the changes since. A relay that dies is a
// silent source: the last snapshot stays in force, and the agents see the error. A relay passes on
// all that its source says, errors and records that are not valid included: each agent has a guard
// of its own. An overlay or a scope without an address is left out.
//
// The answer to GET is a stream of JSON values, one a line, until one side ends it:
//
//	{"hello":{"stream":"6f…","after":0}}
//	{"row":{"cluster":"hello_web","instances":[{"id":"i1","addr":"10.0.0.7:80","version":"v1"}]}}
//	{"row":{"vip":"10.58.0.2","cluster":"hello_web","instances":[]}}
//	{"end":{"revision":1,"sum":"90…"}}
//
// Everything follows an after of 0, else the changes since that revision, which the query names:
// ?stream=6f…&after=1. Changes take effect together with the next end, whose sum is that of all
// lines in force. An empty line is a sign of life.
package relay
