// Package vipsource is an nginxsync.Source of the overlays that the leases of a vip.Allocator stand
// for: on the VIP of each lease that is leased or draining, the clusters that its owner overrides
// are served by the instances that are bound to the lease. A cluster without an instance is an
// empty overlay, which answers 503: the VIP must not show the baseline as the version under test.
// For the same reason an address of a pool without a lease is answered with 410, which names the
// task that had it, and the version that it showed last.
//
// The source keeps the overlays and changes them by the events of the allocator, so that a change
// costs the same with any number of leases. It needs no goroutine of its own; a program that has a
// baseline too gives nginxsync.Merge both sources.
package vipsource
