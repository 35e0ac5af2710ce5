// Package entry starts the service of a container: it finds the command before anything is changed,
// and then stays in front of it as the process 1 that the service is not made to be, or becomes it.
//
// The embedder's work: call [Resolve] first, do what must be done before the service starts, call
// [Init.Run], or [Exec] where [Command.IsInit] says that the command has to be process 1 itself.
//
//	command, err := entry.Resolve([]string{"/app/server", "-port", "8080"}, os.Environ())
//	…
//	report, err := (&entry.Init{}).Run(command, os.Environ(), signals)
//
// What it does not do: it runs no shell and changes neither user nor directory.
package entry
