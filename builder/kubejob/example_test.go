package kubejob_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sluice-deploy/sluice/builder/builds"
	"github.com/sluice-deploy/sluice/builder/builds/filestore"
	"github.com/sluice-deploy/sluice/builder/kubejob"
)

// A platform keeps its builds in a directory and carries them out in the namespace builds of a
// cluster. The example is compiled and not run: it needs a cluster.
func Example() {
	ctx, stop := context.WithCancelCause(context.Background())
	access, err := clientcmd.BuildConfigFromFlags("", "/etc/sluice/kubeconfig")
	if err != nil {
		log.Fatal(err)
	}
	access.QPS, access.Burst = 50, 100
	client, err := kubernetes.NewForConfig(access)
	if err != nil {
		log.Fatal(err)
	}
	engine, err := kubejob.New(kubejob.Config{Client: client, Namespace: "builds",
		Image: "registry.example.com/platform/builder@sha256:" +
			"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
		PushSecret: "registry"})
	if err != nil {
		log.Fatal(err)
	}
	store, err := filestore.Open(ctx, filestore.Config{Dir: "/var/lib/sluice/builds"})
	if err != nil {
		log.Fatal(err)
	}
	b, err := builds.New(builds.Config{Journal: store, Logs: store, Owners: store,
		Owner: "platform-1", Engine: engine})
	if err != nil {
		log.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()

	_, err = b.Submit(ctx, builds.Order{ID: "hello_web-v2", Actor: "ann", Attempts: 3,
		Repository: "registry.example.com/hello_web", Tag: "v2", Deadline: 20 * time.Minute,
		Dockerfile: "FROM registry.example.com/base/tomcat:10\nRUN echo hello\n"})
	if err != nil {
		log.Fatal(err)
	}
	build, err := b.Wait(ctx, "hello_web-v2")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(build.State, build.Result.Reference)
	stop(kubejob.ErrLeft) // what still builds goes on, and the next process takes it up
	<-ended
}
