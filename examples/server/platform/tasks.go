package platform

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sluice-deploy/sluice/internal/names"
	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/vip"
)

const testEnvironment = "test"

// startTTL is the least that the lease of a task lasts while it is being started, however short
// TaskTTL is.
const startTTL = time.Hour

// TaskRequest asks for a test task: one version of a cluster behind a VIP of its own.
type TaskRequest struct {
	Task    string `json:"task"`
	Cluster string `json:"cluster"`
	Version string `json:"version"`
	Actor   string `json:"actor"`
}

// Task is a test task and the VIP that carries it.
type Task struct {
	Task      string         `json:"task"`
	VIP       netip.Addr     `json:"vip"`
	State     vip.State      `json:"state"`
	Clusters  []TaskCluster  `json:"clusters"`
	Instances []vip.Instance `json:"instances"`
	Since     time.Time      `json:"since"`
	Expires   time.Time      `json:"expires,omitzero"`
	// when the VIP may be given to another task
	CoolUntil time.Time `json:"coolUntil,omitzero"`
}

// TaskCluster is the version that overrides one cluster.
type TaskCluster struct {
	Cluster string `json:"cluster"`
	Version string `json:"version"`
	Digest  string `json:"digest,omitempty"`
}

// StartTask deploys the version to test for this task and gives it a VIP. It returns when every
// worker of Nginx answers on the VIP with the version; TaskTTL counts from then on. The same
// request again returns the same VIP and starts its TaskTTL again. A caller that goes away before
// that has cancelled nothing: the task is started all the same.
func (p *Platform) StartTask(ctx context.Context, request TaskRequest) (Task, error) {
	deploy, done, err := p.admitTask(ctx, request)
	if err != nil {
		return Task{}, err
	}
	return detached(ctx, func(ctx context.Context) (Task, error) {
		defer done()
		return p.startTask(ctx, deploy)
	})
}

// admitTask returns the deployment that the task asks for, once nothing stands against it. Until
// done is called, the name of the task is locked and the platform goes on.
func (p *Platform) admitTask(ctx context.Context, request TaskRequest) (deploy promote.Request,
	done func(), err error) {
	if err := checkNames(names.Task(request.Task), names.Cluster(request.Cluster),
		names.Version(request.Version)); err != nil {
		return deploy, nil, err
	}
	end, err := p.begin(ctx)
	if err != nil {
		return deploy, nil, err
	}
	unlock, err := p.locks.lock(ctx, "task "+request.Task)
	if err != nil {
		end()
		return deploy, nil, err
	}
	done = func() {
		unlock()
		end()
	}
	if deploy, err = p.mayStart(ctx, request); err != nil {
		done()
		return deploy, nil, err
	}
	return deploy, done, nil
}

// mayStart returns the deployment that the task asks for, or why it may not start.
func (p *Platform) mayStart(ctx context.Context, request TaskRequest) (promote.Request, error) {
	if !slices.Contains(p.Edge.Clusters, request.Cluster) {
		return promote.Request{}, invalid("cluster %q: the Nginx configuration has no upstream of "+
			"this name, so no address would lead to it; it has %s", request.Cluster,
			strings.Join(p.Edge.Clusters, ", "))
	}
	deploy := promote.Request{
		Target: promote.Target{Cluster: request.Cluster, Environment: testEnvironment,
			Task: request.Task},
		Version: request.Version, Expect: promote.Any, Actor: request.Actor,
		Reason: "task " + request.Task,
	}
	return deploy, p.promoter.Check(ctx, deploy)
}

// detached calls f and returns its result, or the cause when ctx ends before: then f goes on,
// with a context that does not end.
func detached[T any](ctx context.Context, f func(context.Context) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	ended := make(chan result, 1)
	go func() {
		value, err := f(context.WithoutCancel(ctx))
		ended <- result{value, err}
	}()
	select {
	case r := <-ended:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, fmt.Errorf("it goes on without its caller: %w", context.Cause(ctx))
	}
}

func (p *Platform) startTask(ctx context.Context, deploy promote.Request) (Task, error) {
	lease, served, err := p.lease(ctx, deploy)
	if err != nil {
		return Task{}, err
	}
	if served {
		err = p.settle(ctx)
	} else if _, err = p.promoter.Promote(ctx, deploy); errors.Is(err, promote.ErrClosed) {
		return Task{}, err // the next start of the server finishes it
	} else if err != nil {
		_, releaseErr := p.leases.Release(context.WithoutCancel(ctx), lease.ID,
			"the deployment did not succeed")
		err = errors.Join(err, releaseErr)
	}
	if err != nil {
		return Task{}, err
	}
	if lease, err = p.leases.Renew(ctx, lease.ID, p.config.TaskTTL); err != nil {
		return Task{}, err
	}
	p.openTaskDoor(ctx, deploy.Task)
	current, err := p.promoter.Current(ctx)
	if err != nil {
		return Task{}, err
	}
	return p.taskOf(lease, current), nil
}

// lease returns the lease of the task for its start, a new one if it has none; served reports
// whether the version is deployed for it.
func (p *Platform) lease(ctx context.Context, deploy promote.Request) (lease vip.Lease, served bool,
	err error) {
	live := p.leases.List(vip.Query{Task: deploy.Task, States: []vip.State{vip.Leased,
		vip.Draining}})
	for _, l := range live {
		if _, same := l.Owner.Overrides[deploy.Cluster]; !same {
			return l, false, fmt.Errorf("task %q tests %s on VIP %s: finish it first, or choose "+
				"another name for %s: %w",
				deploy.Task, strings.Join(clustersOf(l), ", "), l.Addr, deploy.Cluster,
				vip.ErrConflict)
		}
	}
	ttl := max(p.config.TaskTTL, startTTL)
	lease, err = p.leases.Allocate(ctx, vip.Request{
		Owner: vip.Owner{Task: deploy.Task,
			Overrides: map[string]string{deploy.Cluster: deploy.Version}}, TTL: ttl,
	})
	if err == nil && len(live) > 0 {
		lease, err = p.leases.Renew(ctx, lease.ID, ttl)
	}
	if err != nil {
		return lease, false, err
	}
	current, err := p.promoter.Current(ctx)
	served = slices.ContainsFunc(current, func(d promote.Deployment) bool {
		return d.Target == deploy.Target && d.Version == deploy.Version
	})
	return lease, served, err
}

// FinishTask gives the VIP back, which answers 410 from then on and cools down, and ends
// the task's instances. Once more for the same task is no error until another has its VIP.
func (p *Platform) FinishTask(ctx context.Context, name, actor string) (Task, error) {
	if err := checkNames(checkActor(actor)); err != nil {
		return Task{}, err
	}
	end, err := p.begin(ctx)
	if err != nil {
		return Task{}, err
	}
	unlock, err := p.locks.lock(ctx, "task "+name)
	if err != nil {
		end()
		return Task{}, err
	}
	return detached(ctx, func(ctx context.Context) (Task, error) {
		defer end()
		defer unlock()
		return p.finishTask(ctx, name, actor)
	})
}

func (p *Platform) finishTask(ctx context.Context, name, actor string) (Task, error) {
	lease, err := p.lastLease(name)
	if err != nil {
		return Task{}, err
	}
	if lease, err = p.leases.Release(ctx, lease.ID, "finished by "+actor); err != nil {
		return Task{}, err
	}
	p.checkDoors(ctx)
	if err := p.settle(ctx); err != nil {
		return Task{}, err
	}
	if err := p.retireTask(ctx, name, actor, "task finished"); err != nil {
		return Task{}, err
	}
	return p.taskOf(lease, nil), nil
}

// lastLease is the live lease of the task, else the one that ended last, or ErrNotFound.
func (p *Platform) lastLease(name string) (last vip.Lease, err error) {
	for _, lease := range p.leases.List(vip.Query{Task: name}) {
		switch {
		case lease.State == vip.Leased:
			return lease, nil
		case last.ID == "" || lease.Ended.After(last.Ended):
			last = lease
		}
	}
	if last.ID == "" {
		return last, fmt.Errorf("task %q: %w", name, ErrNotFound)
	}
	return last, nil
}

// retireTask ends the deployments of a task whose lease has ended.
func (p *Platform) retireTask(ctx context.Context, name, actor, reason string) error {
	current, err := p.promoter.Current(ctx)
	if err != nil {
		return err
	}
	for _, d := range current {
		if d.Task != name {
			continue
		}
		if err := p.promoter.Retire(ctx, promote.RetireRequest{Target: d.Target,
			Expect: d.Digest, Actor: actor, Reason: reason}); err != nil {
			return err
		}
	}
	return nil
}

// tidyTasks ends the deployments of tasks whose lease has expired, or was given back just before a
// crash.
func (p *Platform) tidyTasks(ctx context.Context) error {
	current, err := p.promoter.Current(ctx)
	if err != nil {
		return err
	}
	for _, d := range current {
		if d.Task == "" || len(p.leases.List(vip.Query{Task: d.Task, States: []vip.State{vip.Leased,
			vip.Draining}})) > 0 {
			continue
		}
		if err := p.tidyTask(ctx, d.Task); err != nil {
			return err
		}
	}
	return nil
}

func (p *Platform) tidyTask(ctx context.Context, name string) error {
	unlock, err := p.locks.lock(ctx, "task "+name)
	if err != nil {
		return err
	}
	defer unlock()
	// started again meanwhile
	if len(p.leases.List(vip.Query{Task: name, States: []vip.State{vip.Leased,
		vip.Draining}})) > 0 {
		return nil
	}
	return p.retireTask(ctx, name, "sluice", "the lease of its VIP has ended")
}

// releaseUnserved gives back the VIPs of tasks whose start was cut off before anything was
// deployed; no caller has got them. Only at start: later a lease without a deployment is one that
// is being started.
func (p *Platform) releaseUnserved(ctx context.Context) error {
	current, err := p.promoter.Current(ctx)
	if err != nil {
		return err
	}
	served := map[string]bool{}
	for _, d := range current {
		served[d.Task] = true
	}
	for _, lease := range p.leases.List(vip.Query{States: []vip.State{vip.Leased}}) {
		if served[lease.Owner.Task] {
			continue
		}
		if _, err := p.leases.Release(ctx, lease.ID, "its start was cut off"); err != nil {
			return err
		}
	}
	return nil
}

// Task returns one live task, or ErrNotFound. A task is about one cluster and has one VIP.
func (p *Platform) Task(ctx context.Context, name string) (Task, error) {
	tasks, err := p.tasks(ctx, p.leases.List(vip.Query{Task: name, States: []vip.State{vip.Leased,
		vip.Draining}}))
	if err == nil && len(tasks) == 0 {
		err = fmt.Errorf("task %q: %w", name, ErrNotFound)
	}
	if err != nil {
		return Task{}, err
	}
	return tasks[0], nil
}

// Tasks returns the live tasks and those whose VIP still cools down, in the order of the VIPs.
func (p *Platform) Tasks(ctx context.Context) ([]Task, error) {
	return p.tasks(ctx, p.leases.List(vip.Query{States: []vip.State{vip.Leased, vip.Draining,
		vip.Cooling}}))
}

// WhoIs returns the task on the VIP, or ErrNotFound.
func (p *Platform) WhoIs(ctx context.Context, addr netip.Addr) (Task, error) {
	tasks, err := p.tasks(ctx, p.leases.List(vip.Query{Addr: addr, States: []vip.State{vip.Leased,
		vip.Draining, vip.Cooling}}))
	if err == nil && len(tasks) == 0 {
		err = fmt.Errorf("VIP %s: no task: %w", addr, ErrNotFound)
	}
	if err != nil {
		return Task{}, err
	}
	return tasks[0], nil
}

func (p *Platform) tasks(ctx context.Context, leases []vip.Lease) ([]Task, error) {
	current, err := p.promoter.Current(ctx)
	if err != nil {
		return nil, err
	}
	tasks := make([]Task, 0, len(leases))
	for _, lease := range leases {
		tasks = append(tasks, p.taskOf(lease, current))
	}
	return tasks, nil
}

func (p *Platform) taskOf(lease vip.Lease, current []promote.Deployment) Task {
	task := Task{
		Task: lease.Owner.Task, VIP: lease.Addr, State: lease.State, Instances: []vip.Instance{},
		Since: lease.Acquired, Expires: lease.Expires, CoolUntil: lease.CoolUntil,
	}
	if lease.State == vip.Leased { // afterwards Nginx answers 410
		task.Instances = append(task.Instances, lease.Binding.Instances...)
	}
	for _, cluster := range clustersOf(lease) {
		shown := TaskCluster{Cluster: cluster, Version: lease.Owner.Overrides[cluster]}
		for _, d := range current {
			if d.Cluster == cluster && d.Environment == testEnvironment && d.Task == task.Task {
				shown.Digest = string(d.Digest)
			}
		}
		task.Clusters = append(task.Clusters, shown)
	}
	return task
}

func clustersOf(lease vip.Lease) []string {
	clusters := make([]string, 0, len(lease.Owner.Overrides))
	for cluster := range lease.Owner.Overrides {
		clusters = append(clusters, cluster)
	}
	slices.Sort(clusters)
	return clusters
}
