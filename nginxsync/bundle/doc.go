// Package bundle has snapshots of a production Nginx's configuration tree, and the sources that
// they come from.
//
// A Bundle is the files of the tree with their permission bits, and a digest of them. A Source
// yields the newest bundle when its digest changes. The packages below this one are sources:
//
//   - dirbundle: a directory of this machine, with notifications of the kernel;
//   - gitbundle: a branch or a tag of a git repository;
//   - httpbundle: a tar archive on an HTTP server;
//   - rsyncbundle: a module of an rsync daemon;
//   - consulbundle: the keys below a prefix of Consul.
//
// A VerifiedSource passes on only the bundles that carry a signature by a known key, or a complete
// list of checksums:
//
//	directory, err := dirbundle.New(dirbundle.Config{Dir: "/srv/production-nginx"})
//	source := &bundle.VerifiedSource{Source: directory, Keys: []ed25519.PublicKey{operator}}
//	b, err := source.Fetch(ctx, "")      // the current tree
//	b, err = source.Fetch(ctx, b.Digest) // blocks until there is another
//
// A bundle is bounded by Limits. Symbolic links are replaced by copies of their targets, and
// refused when they lead out of the tree. The package does not read the text of the files: package
// transform does.
package bundle
