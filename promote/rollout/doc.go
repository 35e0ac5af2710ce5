// Package rollout moves a target from one image to the next without losing a request: new instances
// start and get ready, the routes move and are verified, the old instances finish the requests that
// they have, and only then they end.
//
// Next is the pure core: the record of a target, the instances that run and a Policy in, the next
// step out. A Rollout carries the steps out and observes after each, so that a rollout that was
// killed at any place goes on from the state that it left. It is a promote.Deployer, and keeps that
// contract's fence.
//
// The embedder, in this order:
//
//  1. writes or chooses an Instances, a Routes and a Records; rollouttest.Run holds each to its
//     contract;
//  2. calls New, and gives the Rollout to promote.New;
//  3. calls Recover once at the start, after Promoter.Recover, and Tidy every few seconds.
//
// For example:
//
//	r, err := rollout.New(rollout.Config{
//		Records: records, Instances: instances, Routes: routes,
//		Policy: func(t promote.Target) rollout.Policy {
//			if t.Environment == "production" {
//				return rollout.Policy{Count: 12, Surge: 3, Retain: time.Hour}
//			}
//			return rollout.Policy{}
//		},
//	})
//	…
//	p, err := promote.New(promote.Config{Journal: journal, Deployer: r})
//	…
//	_, err = p.Recover(ctx)
//	err = r.Recover(ctx)
//
// It does not put the earlier image back after a failure: Promoter does. It does not start again
// instances that end by themselves: their runtime does.
package rollout
