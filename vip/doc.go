// Package vip leases virtual IP addresses out of pools: one for each test task, so that the address
// a tester types names the version that answers. An address is never given to two owners, and never
// given again before it has rested.
//
// Steps for the embedder, in this order:
//
//  1. Declare the pools: addresses that lead to the test Nginx. ParsePool reads prefixes, ranges
//     and single addresses.
//  2. Choose a Store and open it: MemStore, boltstore (one machine), consulstore (several), or one
//     that passes storetest.Run.
//  3. Make an Allocator with Open and run its Run in a goroutine: it ends expired leases.
//  4. Allocate with a task as the owner. Keep the lease's ID: every later change takes it.
//  5. Bind the instances behind the address whenever they change, Renew before the lease expires,
//     Release at the end.
//  6. Make the data plane follow List. An address that drains or cools down must not be answered as
//     if its task went on.
//
// A lease in ten lines:
//
//	pool, err := vip.ParsePool("test", "127.58.0.0/24")
//	// ...
//	a, err := vip.Open(ctx, vip.Config{Store: vip.NewMemStore(), Pools: []vip.Pool{pool}})
//	// ...
//	go a.Run(ctx)
//	lease, err := a.Allocate(ctx, vip.Request{Owner: vip.Owner{Task: "T-1", Overrides: map[string]string{"hello_web": "v2"}}})
//	// ...
//	lease, err = a.Bind(ctx, lease.ID, []vip.Instance{{ID: "c1", Addr: netip.MustParseAddrPort("10.1.2.3:8080")}})
//	// ...
//	_, err = a.Release(ctx, lease.ID, "task finished")
//
// Identity and memory: the owner is the identity, so an answer that was lost is asked for again and
// is the same. The generation grows with every tenure of an address, so that a late call of an
// earlier holder gets ErrFenced. A released address cools down for Pool.CoolDown, 130 s unless said
// otherwise, because ARP tables, connection tracking and browsers remember it; then the address
// that has been free longest is handed out first. Only the owner that had it last gets it back at
// once: the testers of a task keep its address over a redeploy. All of it is in the store, and
// survives a restart. A store that does not say whether a commit was made is asked until it does,
// and the address is not touched before. At every revision free + leased + draining + cooling +
// quarantined + reserved is the size of the pool.
//
// Beyond that an owner may ask for an IPv4 and an IPv6 address (AllocateDual), for several at once
// (AllocateN), wait in line (Request.Wait), or choose pools by label; a Pool has quotas and can be
// disabled or changed under live leases (SetPools); ReadList takes over a provider's list of
// ready-made addresses. Watch reports changes, History and At the earlier holders of an address.
// Quarantine sets a bad address aside. Package audit compares the leases with outside systems, such
// as Nginx routes, and ends leases whose owner is gone.
//
// Several allocators may use a store, in one process or on several machines, unless it is an
// ExclusiveStore: a task is one owner for all of them, whichever it asks, and each sees the changes
// of the others at once when the store is a Watcher, at least every Config.Refresh otherwise. An
// allocator that was stopped, or cut off, while others went on changes nothing that has changed
// meanwhile. A store that is restored from a backup takes promises back: they are fenced, and a
// lease id of then is not given again.
//
// Allocation, release and refusal cost the same whether the pool is empty or full, small or large.
// An address that was never used costs no memory, and in a pool of more than 65,536 addresses one
// that has rested is forgotten. Lists and watchers do not hold up allocations.
//
// Limits: the package moves no packets and configures no network (package provision does); it does
// not start, stop or watch the instances; it does not decide which version a task should test.
package vip
