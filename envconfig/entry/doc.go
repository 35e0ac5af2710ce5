// Package entry starts the service of a container: it finds the command before anything is changed, and then becomes it, or
// stays before it as the process 1 that a shell script is not.
//
// The embedder's work: call [Resolve] first, do what must be done before the service starts, call [Exec] or [Init.Run].
//
//	command, err := entry.Resolve([]string{"/app/server", "-port", "8080"}, os.Environ())
//	…
//	err = entry.Exec(command, os.Environ()) // returns only when it could not
//
// What it does not do: it runs no shell and changes neither user nor folder.
package entry
