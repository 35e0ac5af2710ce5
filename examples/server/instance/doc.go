// Package instance runs containers of one machine for a trial: every instance is a local process
// whose root is the file system of an image, unpacked from a registry by digest.
//
// As root an instance has its own mount and process namespaces and the user that the image names;
// as another user it has a user namespace besides, in which it is root and outside of which it is
// the caller, and the image's user is not honoured. The network is the machine's: the variable PORT
// holds the port of 127.0.0.1 that an instance listens on. There are no resource limits, no seccomp
// profile and no capability bounding beyond no_new_privs. A platform runs its instances on
// Kubernetes.
//
// Instances outlive the process that started them: a Runtime that is opened on the same directory
// finds them again, or starts them again when they are gone.
//
// The embedder's main must call Init first: an instance starts as a copy of the embedder's own
// program, which sets up the namespaces and then becomes the service.
//
//	func main() {
//		instance.Init()
//		runtime, err := instance.Open(ctx, instance.Config{Dir: "data/instances"})
//		…
//		go runtime.Run(ctx)
//		one, err := runtime.Start(ctx, instance.Spec{ID: "web-1", Image: "127.0.0.1:5800/web@sha256:…"})
//	}
package instance
