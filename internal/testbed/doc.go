// Package testbed is the base on which tests run real servers. Each server is a package below it,
// so that a test compiles the servers that it starts and no other: nginx, consul, registry, rsync,
// hosts, image; kube and proxy, whose clients are heavy, are modules of their own. Each Start takes
// the test, requires its programs, starts on free ports, waits until the server answers, shows the
// end of its log when the test has failed, and leaves nothing behind. A test whose server is
// missing is skipped and says how to install it; with SLUICE_TESTBED=require it fails.
//
// Everything that a test binary makes is on record in a directory that the kernel holds locked for
// it. A record without a lock belongs to a killed binary, and the next binary that starts undoes
// it, whichever servers it runs itself: therefore every way to undo is in this package.
package testbed
