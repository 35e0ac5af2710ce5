// Package platform is where the five packages of the library meet: it is the example server without
// its web side. It builds images into a registry (builder), moves their digests through the
// environments (promote), gives every test task a virtual IP (vip), runs instances on this machine,
// and keeps the upstreams of a running Nginx in step with both (nginxsync). A platform of your own
// would keep the wiring and put its own registry, runtime and users in place.
//
// Acknowledged changes are on disk: the journal, the leases, the builds and the generation of each
// target that serves are in one bbolt file, images in the registry, instances in directories of
// their own. Open after a crash finds all of them, finishes the changes that were in progress and
// goes on. Uploaded sources are not synced: a power failure may lose one.
package platform
