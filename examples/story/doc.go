// Package story runs the main job of Sluice against a running example server, through its API and
// through Nginx, as a platform engineer and two testers would: a baseline, two versions side by
// side on VIPs of their own, a restart without a reload, a promotion of one digest through all
// environments, refused requests, and the end of a task.
//
// The demo prints it; the end-to-end test runs it, also with the server killed in the middle.
package story
