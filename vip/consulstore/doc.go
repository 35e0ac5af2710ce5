// Package consulstore keeps the records of vip.Allocators in Consul's key-value store: one key for
// each address, for allocators on several machines that share their pools.
//
// Steps for the embedder, in this order:
//
//  1. Make an api.Client: address, TLS and token are its business. The token needs key_prefix write
//     on the prefix. Take it from CONSUL_HTTP_TOKEN_FILE or a vault, never from a command line.
//  2. Make a Store with New, and give it to vip.Open, in as many processes as there are allocators.
//
// In short:
//
//	client, err := api.NewClient(api.DefaultConfig())
//	// ...
//	store, err := consulstore.New(client, consulstore.Config{Prefix: "platform/vip/"})
//	// ...
//	a, err := vip.Open(ctx, vip.Config{Store: store, Pools: pools})
//
// A commit is one transaction of Consul in which every key is compared with the index that is
// expected, so an allocator that was away, in a pause or behind a partition, changes nothing that
// has changed meanwhile. A record's revision is its ModifyIndex. Consul leaves that index alone
// when a key is set to its present value; each commit therefore marks its records with a random
// number, in Flags, which makes every commit a change. The mark also settles the outcome of a
// commit whose answer was lost: it is read back, with a leader's confirmation, as soon as there is
// a leader. Reads are always consistent ones.
//
// When the servers are restored from a snapshot, changes after the snapshot are gone, acknowledged
// ones too: allocators take over the restored records, and a lease that is no longer there is
// ErrNotFound or ErrFenced to its holder.
//
// An allocator waits by a blocking query for the index of the records, and reads them when it has
// changed: changes of another allocator are seen at once, and an idle allocator costs Consul a few
// bytes every 20 s.
//
// Limits: the package takes no lock and opens no session, because the holder of a lock in Consul
// may find out too late that it was lost, and comparing each record does not depend on clocks. It
// does not set up Consul or its ACLs.
package consulstore
