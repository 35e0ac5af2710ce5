// Package place replaces a set of files below a root as a whole: after an error, a cancelled
// context or a crash either every target is as it was before or every target is as it should be,
// never a mixture.
//
// The caller's work, in order:
//
//  1. open the root as a [Tree] and take the lock with [Lock];
//  2. call [Recover] with every directory that an earlier transaction may have begun in;
//  3. compare the wanted files with the targets by [Diff], and ask [Plan.Blocked] which targets
//     this user cannot write;
//  4. call [Transaction.Run], record the files now in place, and call [Transaction.Finish].
//
// In short:
//
//	t := place.NewTree(root)
//	unlock, err := place.Lock(ctx, t, files[0].Path)
//	…
//	defer unlock()
//	committed, err := place.Recover(t, dirs, nil)
//	…
//	plan, err := place.Diff(t, files, stale, nil)
//	…
//	tx := place.Transaction{Targets: t, Contents: contents}
//	err = tx.Run(ctx, plan)
//	err = tx.Finish()
//
// # Crash protocol
//
// All temporary names begin with [TempPrefix] and stand in the directory of their target, so that
// each change is a rename within one directory. A journal in the nearest existing directory of the
// first target lists every change, the directories that the transaction makes and the directories
// that it may leave empty. The journal's name is its phase:
//
//	stage   the missing directories are made and the new files are written as N.new;
//	        no target has changed
//	commit  target by target, the old file gets the second name N.old and the new file is
//	        renamed over the target
//	done    nothing is undone any more; the old files, the emptied directories and the
//	        journal are removed
//
// Each change of the phase is one rename of the journal, and the journal is written before the
// first directory or file is made. Recovery undoes a journal that it finds in stage or commit, last
// change first, and completes one in done. Each of its steps may be repeated, so recovery after a
// crash of recovery works in the same way. Names do not hold a process id: process 1 of two
// containers that share a volume would collide.
//
// By default nothing is synchronised to the disk: the protocol covers the death of the process, not
// the loss of power. With [Transaction.Durable] the file systems of all targets are synchronised
// between the last rename and the phase done.
//
// # How files are replaced
//
// A regular file and a symbolic link are replaced by rename; the link itself is replaced, its
// target is not touched. A file that has the wanted content and mode already is not touched.
// Anything else in a target's place, a directory or a device, is an error. Where the file system
// cannot give the old file a second name, the old file is renamed away and for a moment the target
// does not exist. Modes are exact, independent of the umask. Owners do not change.
//
// A file that is a mount of its own cannot be renamed over. [Plan.WriteInPlace] has such files
// written in place: in the phase stage their old content is copied to N.old as well, and in the
// phase commit N.new is copied into the target, whose mode stays. Undoing copies N.old back.
//
// # Lock
//
// [Lock] locks the directory of the first target and every directory above it with flock(2), from
// the root down: processes that see the tree from different roots still meet, and none waits for
// another in a circle. The locks are on the directories themselves: no file is made, and the kernel
// releases the locks of a killed process. On a file system or an operating system without flock
// there is no lock, and processes must not share the tree.
//
// Limits: the package knows no environments, manifests or records, merges no contents and follows
// no link out of the root. A [Tree], a [Plan] and a [Transaction] are for one goroutine.
package place
