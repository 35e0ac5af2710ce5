// Package source fetches the code of a build from where it is declared to be: a directory of an
// rsync daemon, a commit of a git repository, an archive, or an OCI artifact.
//
// A [Fetcher] fetches one [Source] into a directory and returns its [Identity]: the commit, sum or
// digest that names exactly the files that it gave. The fetchers are packages of their own:
// rsyncsource, gitsource, archivesource, artifactsource; a [Set] has one for each kind, and a
// [Spool] gives each fetch directories of its own. sourcetest holds a fetcher to the contract.
//
// An embedder's part, in order:
//
//  1. Install rsync and git where rsyncsource and gitsource are used.
//  2. Open a Spool on a disk with room for the code of all builds that run at a time.
//  3. Give its Fetch to package builds: builds.FetchFrom(spool).
//
// In short:
//
//	files, err := rsyncsource.New(rsyncsource.Config{})
//	spool, err := source.Open(ctx, source.Config{Dir: "/var/lib/sluice/source",
//		Fetcher: source.Set{Rsync: files}})
//	fetched, err := spool.Fetch(ctx, source.Request{Source: source.Source{Rsync: &source.Rsync{
//		Host: "10.1.2.3", Module: "output", Path: "hello_web"}}})
//	defer fetched.Close()
//
// Every kind gives the same: regular files, directories and symbolic links, each with its name, its
// content or target, and of its mode the nine permission bits; a directory is always open to its
// owner. A link that leads out of the tree, a device, a pipe and a socket are refused, and no file
// is written outside of the directory. Owners and times do not count.
package source
