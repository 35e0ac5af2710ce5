// Package catalogtest has the tests that build the templates of the catalogue of package builder,
// on bases of Debian packages, start the images, ask them over HTTP and stop them in the middle of
// a request.
package catalogtest
