package platform

import "github.com/sluice-deploy/sluice/promote"

// DeployerOf returns what p gives to its Promoter.
func DeployerOf(p *Platform) promote.Deployer { return deployer{p} }

// InstanceID returns the id of the first instance of d.
func InstanceID(d promote.Deployment) string { return deployer{}.spec(d, 0).ID }
