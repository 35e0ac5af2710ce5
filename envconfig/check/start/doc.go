// Package start reads how an image starts its service, out of a Dockerfile and the scripts in the
// image, and finds what keeps a signal from the service or cuts its requests off. It is apart from
// package check so that an embedder who needs none of it does not link a parser of shell scripts.
//
// The embedder's work: give [Dockerfile] the text of the Dockerfile, [Entrypoint] what it says, and
// the findings to [check.Set.Check], which holds them to the allow-list.
//
//	command, dir := start.Dockerfile(text)
//	report := set.Check(config, time.Now(), start.Entrypoint(command, image, dir))
//
// What it does not do: it runs nothing, and knows nothing of an image in a registry that the last
// stage begins with.
package start
