package kubejob

import (
	"context"
	"sync"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// news wakes the builds of an engine when their Job or pod changes: two watches for all builds,
// while there are any. It has no content: a build that wakes asks the API server.
type news struct {
	client    kubernetes.Interface
	namespace string

	mu    sync.Mutex
	heard map[string]chan struct{} // by the value of buildLabel
	stop  context.CancelFunc
}

// join returns a channel that has an element after a change of the build, and the end of it.
func (n *news) join(build string) (changed <-chan struct{}, leave func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := make(chan struct{}, 1)
	n.heard[build] = c
	if n.stop == nil {
		var ctx context.Context
		ctx, n.stop = context.WithCancel(context.Background())
		go n.watch(ctx)
	}
	return c, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.heard[build] == c {
			delete(n.heard, build)
		}
		if len(n.heard) == 0 && n.stop != nil {
			n.stop()
			n.stop = nil
		}
	}
}

// watch watches until ctx ends.
func (n *news) watch(ctx context.Context) {
	jobs := n.client.BatchV1().Jobs(n.namespace)
	pods := n.client.CoreV1().Pods(n.namespace)
	var both sync.WaitGroup
	for _, w := range []struct {
		object runtime.Object
		source *cache.ListWatch
	}{
		{&batchv1.Job{}, &cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object,
				error) {
				o.LabelSelector = buildLabel
				return jobs.List(ctx, o)
			},
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface,
				error) {
				o.LabelSelector = buildLabel
				return jobs.Watch(ctx, o)
			}}},
		{&corev1.Pod{}, &cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object,
				error) {
				o.LabelSelector = buildLabel
				return pods.List(ctx, o)
			},
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface,
				error) {
				o.LabelSelector = buildLabel
				return pods.Watch(ctx, o)
			}}},
	} {
		_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
			ListerWatcher: w.source, ObjectType: w.object, Transform: nameOnly,
			Handler: cache.ResourceEventHandlerFuncs{AddFunc: n.tell,
				UpdateFunc: func(_, o any) { n.tell(o) }, DeleteFunc: n.tell},
		})
		both.Go(func() { informer.RunWithContext(ctx) })
	}
	both.Wait()
}

// nameOnly leaves the name and the label of an object: builds ask for the rest.
func nameOnly(object any) (any, error) {
	strip := func(m *metav1.ObjectMeta) metav1.ObjectMeta {
		return metav1.ObjectMeta{Name: m.Name, Namespace: m.Namespace, UID: m.UID,
			ResourceVersion: m.ResourceVersion,
			Labels:          map[string]string{buildLabel: m.Labels[buildLabel]}}
	}
	switch o := object.(type) {
	case *batchv1.Job:
		return &batchv1.Job{ObjectMeta: strip(&o.ObjectMeta)}, nil
	case *corev1.Pod:
		return &corev1.Pod{ObjectMeta: strip(&o.ObjectMeta)}, nil
	}
	return object, nil
}

func (n *news) tell(object any) {
	if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = gone.Obj
	}
	o, ok := object.(metav1.Object)
	if !ok {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if c := n.heard[o.GetLabels()[buildLabel]]; c != nil {
		select {
		case c <- struct{}{}:
		default: // it has not heard of the last change yet
		}
	}
}
