package platform

import (
	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/rollout"
)

// DeployerOf returns the deployer that p gives to its Promoter.
func DeployerOf(p *Platform) promote.Deployer { return deployer{p.rollout} }

// InstancesOf returns the instances that p gives to its rollout.
func InstancesOf(p *Platform) rollout.Instances { return machine{p} }

// RotateLogs rotates the logs as Run does every few seconds, with another limit.
func RotateLogs(p *Platform, limit int64) error { return p.rotateLogs(limit) }
