// Package builds gives a build an id under which it outlives its caller and its process: submit it,
// follow it from a sequence number, read its log from an offset, cancel it.
//
// Every process that shares a [Journal] and a [Logs] sees the same builds. Processes that call
// [Builds.Run] carry them out with a builder.Engine; the others only ask. A caller that goes away
// cancels nothing. When the process that carries a build out is killed, another one carries the
// build out again from its beginning: nothing is known of how far it came, so it is never recorded
// as failed for that.
//
// An embedder's part, in order:
//
//  1. Open the stores: package filestore for the processes of one machine, [NewMemory] for a test.
//  2. Set Config.Context, as a rule to [FetchFrom] a spool of sources, and return the values of
//     named secrets in Config.Secrets.
//  3. Call Run in the processes that build.
//  4. Submit with an id that is the same whenever the caller asks again for the same build.
//
// In short:
//
//	store, err := filestore.Open(ctx, filestore.Config{Dir: "/var/lib/sluice/builds"})
//	b, err := builds.New(builds.Config{Journal: store, Logs: store, Owners: store,
//		Owner: "builder-1", Engine: engine,
//		Context: builds.FetchFrom(spool)})
//	go b.Run(ctx)
//	build, err := b.Submit(ctx, builds.Order{ID: "hello_web-v2", Actor: "ann",
//		Dockerfile: dockerfile, Repository: "registry.example.com/hello_web", Tag: "v2"})
//	entries, err := b.Follow(ctx, build.ID, 0)
//
// The decisions are a pure core, state and command in, entry out: decide.go. The package does not
// check the rights of actors.
package builds
