// Package audit compares the leases of a vip.Allocator with the systems around it.
//
// Auditor.Check compares the live leases with outside views of the addresses: the routes in Nginx,
// the tables of LVS, a registry. It changes nothing. Auditor.Repair puts the views right, because
// the leases are authoritative. A LeakChecker ends leases whose owner no longer exists, in two
// steps: an owner that is gone makes its lease a suspect, and only one that stays gone for a grace
// period loses it.
//
// Both touch only the allocator's own addresses: those of its pools that are not reserved. And both
// hold a change that looks like a fault elsewhere: more than a tenth of a view or of the leases at
// once, a store without any record. A Hold says so, and a person can allow it. An address whose
// live lease the store has lost (vip.Allocator.Lost) is reported, and left as it is.
//
// Steps for the embedder, in this order:
//
//  1. Implement View for each system that uses the addresses, and Repairer where it can be put
//     right.
//  2. Make an Auditor with New, call Check now and then, show Report.Findings and Report.Held, and
//     call Repair with the report when the findings look right.
//  3. Make a LeakChecker with a function that asks the orchestrator whether the owner of a lease
//     exists, and run its Run.
//
// Limits: the package keeps no record of earlier reports, and it does not find instances that no
// lease binds.
package audit
