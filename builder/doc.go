// Package builder turns a template, a few typed values and a directory of files into an image in a
// registry.
//
// Developers choose a [Template] of a [Catalog] and enter its parameters in place of writing a
// Dockerfile. The rendered Dockerfile has the instructions of the template for all values, and an
// [Engine] builds and pushes it. Package assemble holds the engine that works in this process,
// without daemon and without root, for templates that run no command.
//
// An embedder's part, in order:
//
//  1. Take [Default], or [Load] a catalogue of your own.
//  2. Lay out the build context as Template.Context says: the envconfig binary, the configuration
//     of all environments, its manifest, the service. Template.CheckContext reports everything that
//     is missing at once.
//  3. Render, and show every error to the user that entered the values: it names the template's
//     line and the parameter. Errors that are ErrInvalid are that user's; others are worth another
//     try.
//  4. Choose the engine: one that executes commands when Template.NeedsRun, else any. Keep it for
//     the life of the process.
//  5. Build under a tag that is the version's name, and keep Result.Digest: deployments use the
//     digest.
//
// In short:
//
//	template, err := builder.Default().Template("go-static")
//	dockerfile, err := template.Render(map[string]string{"CLUSTER_NAME": "hello_web"})
//	engine, err := assemble.New(assemble.Config{})
//	result, err := engine.Build(ctx, builder.Request{
//		Dockerfile: dockerfile,
//		Context:    builder.RootFS(root), // an *os.Root
//		Repository: "registry.example.com/hello_web",
//		Tag:        "v2",
//	})
//
// Package builds keeps records of builds that outlive their caller. This package does not compile
// code, scan images, or delete pushed images.
// It does not hide values: parameters, build arguments and labels are part of the image, so secrets
// have no place in them.
package builder
