// Package promote moves the digest of an image through a pipeline of environments, one after the
// other, past gates, and writes every step down.
//
// A version is bound to a digest once and never to another. The digest moves: the same one in every
// environment. Every change of a target (a cluster in an environment) is a compare-and-set on a
// journal, so that of two people that deploy the same target at once one wins and the second learns
// the winner's name and version. A change that fails leaves the earlier deployment, and a crash in
// the middle of one is seen, and brought to an end, by Recover.
//
// A change belongs to the journal and not to its caller: Start returns its ID, Wait follows it, and
// Abort ends it. docs/promote-states.md has the table of states and commands.
//
// The embedder, in this order:
//
//  1. chooses a Journal: promote/boltjournal on one machine, NewMemJournal in tests;
//  2. writes a Deployer: two idempotent methods that make a target run a digest, or nothing, and
//     that refuse a generation older than one they have seen; deployertest.Run holds it to the
//     contract;
//  3. chooses gates: OrderGate, ConfigGate with promote/ociregistry, ApprovalGate, SoakGate,
//     TrafficGate, FreezeGate, the gates of a document (promote/rules), and any of its own;
//     quarantine and holds after a rollback need none; Explain says what a request waits for;
//  4. calls New, then Recover once before the first change, and Close at the end;
//  5. binds each version to its digest when the image is built, then promotes, rolls back and
//     retires; Adopt writes down a version that ran before Sluice, InUse lists the digests that a
//     registry must keep.
//
// For example:
//
//	journal, err := boltjournal.Open(ctx, boltjournal.Config{Path: "journal.db"})
//	…
//	images, err := ociregistry.New(ociregistry.Config{})
//	…
//	p, err := promote.New(promote.Config{
//		Journal:  journal,
//		Deployer: deployer,
//		Gates:    []promote.Gate{promote.OrderGate{}, promote.ConfigGate{Source: images}},
//	})
//	…
//	_, err = p.Recover(ctx)
//	err = p.Bind(ctx, promote.Binding{Cluster: "hello_web", Version: "v2", Digest: digest, Repository: "registry:5000/hello_web", Actor: "ci"})
//	_, err = p.Promote(ctx, promote.Request{Target: promote.Target{Cluster: "hello_web", Environment: "test", Task: "t1"}, Version: "v2", Expect: promote.None, Actor: "alice"})
//
// It does not build images, run containers, shift traffic, or check permissions: Actor is the name
// that the caller states. The journal is read into memory, once, and kept there; Archive moves older
// entries out of its store.
package promote
