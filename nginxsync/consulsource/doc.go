// Package consulsource is an nginxsync.Source of the services in Consul: each instance whose checks
// all pass serves its cluster in the baseline.
//
// Steps for the embedder:
//
//  1. Fill an api.Config for the agent of this machine: address, token (service:read and node:read),
//     TLS, datacentre. Take the token from its file or a vault, never from a command line.
//  2. Make a Source with New, give it to as many nginxsync.Agents as there are, and call Run.
//  3. Look at Status: services that are not heard, entries set aside, instances that flap.
//
// The source waits for each service by a blocking query of its own, which any server may answer. It
// does not believe an answer of a server without a leader, one that is too far behind, or one that
// lacks all that the token may not read; an answer that takes the last instance of a service away
// is confirmed by the leader. The queries keep away from Consul's streaming backend, which names no
// leader and wakes no query after a restore. A service that is not heard keeps its instances, and
// the others go on. A Consul that hangs is noticed by a probe within ten seconds, and all services are asked again when it is
// back. Nothing is ever taken away because Consul is silent; how an emptying change is held is the
// business of nginxsync.Agent.
//
// A registration that gets another service's name under its old id wakes no query of the name
// before: where both services are followed, it is noticed by the other one's answer, else after
// Config.Wait. Deregister such a service first.
//
// A record of Consul becomes an instance so: the id is the service's (with the node before it where
// another node had the same id first), the address is the service's or else the node's, the weight is
// Weights.Passing, the version is the metadata under Config.VersionMeta, and metadata "backup" of
// "true" makes a backup. An instance that came and went four times within a minute is left out until
// it has been calm for half a minute, unless fewer than half would be left.
//
// Sources for the rules: Consul's documentation of blocking queries and consistency modes
// (https://developer.hashicorp.com/consul/api-docs/features/blocking,
// https://developer.hashicorp.com/consul/api-docs/features/consistency) and issues hashicorp/consul
// 4103 and 7939.
package consulsource
