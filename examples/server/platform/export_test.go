package platform

import "github.com/sluice-deploy/sluice/promote"

// DeployerOf returns what p gives to its Promoter.
func DeployerOf(p *Platform) promote.Deployer { return deployer{p} }
