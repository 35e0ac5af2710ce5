// Package sluice carries one container image through four environments (test, sandbox, production,
// stable) and gives every test task a virtual IP address of its own behind a faithful copy of the
// production Nginx.
//
// The work is done by five packages, none of which imports another:
//
//   - builder renders a Dockerfile from a template of a catalogue and builds an image@digest from
//     it;
//   - promote moves a digest through the environments, past gates, and writes down every step;
//   - vip leases virtual addresses out of a pool, one for each test task;
//   - nginxsync carries the production Nginx config over and changes the upstreams of a running
//     Nginx without a reload;
//   - envconfig, in the image, picks the configuration of the environment and starts the service.
//
// They meet in the caller's own platform. examples/server shows one way to wire all of them,
// examples/embed the smallest.
package sluice
