// Package start reads how an image starts its service, out of a Dockerfile and the scripts in the
// image, and finds mistakes that keep a signal from the service or cut its requests off. It is
// apart from package check so that an embedder without this check does not link a parser of shell
// scripts.
//
// The embedder's work: give the text of the Dockerfile to [Dockerfile], its result to [Entrypoint],
// and the findings to [check.Set.Check], which applies the allow-list to them.
//
//	image := start.Dockerfile(text)
//	report := set.Check(config, time.Now(), start.Entrypoint(image, root))
//
// The limits: it runs nothing, and knows nothing of an image in a registry that the last stage
// begins with.
package start
