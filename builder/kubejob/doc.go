// Package kubejob is a builder.Engine that builds each image in a Kubernetes Job, by BuildKit.
//
// The request and its context travel as one OCI artifact in the repository of the image; the Job
// names it by digest. The pod's program, cmd/sluice-build, fetches it, builds, and pushes the image
// by digest; it never runs a shell over a value of the request. The engine follows the log, types
// the failure by the evidence of pod, cluster and registry, reads the pushed image back, and writes
// the tag once.
//
// A request with an ID outlives this process: its Job has a name made of the ID and a finalizer of
// the engine, and the next Build of the same request, in any process, takes the Job up. The
// finalizer goes once the log is kept and Build is about to return.
//
// An embedder's part, in order:
//
//  1. Make an image with buildkitd, buildctl, runc and sluice-build in PATH, as the README shows.
//  2. Apply manifests/rbac.yaml to the namespace of the builds.
//  3. Make the client of the cluster, and an engine of it.
//  4. Give the engine to package builds as Config.Engine, which keeps records and logs.
//
// In short:
//
//	engine, err := kubejob.New(kubejob.Config{Client: client, Namespace: "builds",
//		Image: "registry.example.com/platform/builder@sha256:…", PushSecret: "registry"})
//	b, err := builds.New(builds.Config{Engine: engine, …})
//
// The package does not queue: package builds does. It does not remove images, orders or logs from
// the registry; a registry that collects untagged manifests does.
package kubejob
