// Package servertest runs whole example servers inside tests: a real registry, a real Nginx with
// VIPs, real instances, the API and the page, on free ports and in the test's own directory. When
// the test ends nothing of it runs.
//
// Instances start as copies of the test binary, which must therefore begin with Main:
//
//	func TestMain(m *testing.M) { servertest.Main(m) }
//
//	func TestSomething(t *testing.T) {
//		s := servertest.Start(t, servertest.Config{})
//		s.MustBuild(t, "hello_web", "v1")
//		…
//	}
//
// The server's log is shown with a failing test. A package that is missing on this machine fails
// the test with the command that installs it.
package servertest
