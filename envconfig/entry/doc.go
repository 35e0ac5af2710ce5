// Package entry starts the service of a container: it finds the command before anything is changed,
// and then stays in front of it as the process 1 that the service is not made to be, or becomes it.
//
// The embedder calls [Resolve] first, does the work that must precede the start of the service, and
// then calls [Init.Run], or [Exec] where [Command.IsInit] says that the command has to be process 1
// itself.
//
//	command, err := entry.Resolve([]string{"/app/server", "-port", "8080"}, os.Environ())
//	…
//	report, err := (&entry.Init{}).Run(command, os.Environ(), signals)
//
// The package runs no shell and changes neither user nor directory.
package entry
