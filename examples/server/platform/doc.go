// Package platform is where the five packages of the library meet: it is the example server without its web side. It
// builds images into a registry (builder), moves their digests through the environments (promote), gives every test task a
// virtual IP (vip), runs instances on this machine, and keeps the upstreams of a running Nginx in step with both
// (nginxsync). A platform of your own would keep the wiring and put its own registry, runtime and users in place.
//
// What is acknowledged is on disk: the journal, the leases, the builds and which generation of a target serves stand in one
// bbolt file, images in the registry, instances in folders of their own. Open after a crash finds all of them, finishes
// what was under way and goes on. Uploaded sources are not synced: a power failure may lose one.
package platform
