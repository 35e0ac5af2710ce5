package platform

import "github.com/sluice-deploy/sluice/promote"

// DeployerOf returns the deployer that p gives to its Promoter.
func DeployerOf(p *Platform) promote.Deployer { return deployer{p} }

// InstanceID returns the id of the first instance of d.
func InstanceID(d promote.Deployment) string { return instanceID(d, 0) }

// RotateLogs rotates the logs as Run does every few seconds, with another limit.
func RotateLogs(p *Platform, limit int64) error { return p.rotateLogs(limit) }
