// Package filestore keeps builds in a directory that several processes of one machine share: it is
// a builds.Journal, builds.Logs and builds.Owners.
//
// The file "journal" holds one entry a line, as JSON; "logs" has one file a log; "owners" one
// file an owner, which its process locks until it ends: the kernel frees the lock of a dead
// process. A line that cannot be read harms its own build only; a line that a crash cut off is
// removed by the next append. It locks files with flock(2): the directory is on a local file
// system, and Open is builder.ErrUnsupported where the operating system has none.
package filestore
