// Package envconfig lets one container image carry the configuration files of every environment and
// puts those of one environment in place when the container starts.
//
// In the image, a directory (by default /etc/envconfig) holds
//
//	envs/_base/…          files that all environments share
//	envs/production/…     files of one environment; each path mirrors the target tree, so
//	                      envs/production/opt/web/app.conf becomes /opt/web/app.conf
//	envconfig.json        optional: modes, required files, how single paths are activated (see [Spec])
//	manifest.json         optional: the manifest of [Scan], written when the image is built
//
// The embedder's work, in order:
//
//  1. lay the files out as above and call [Scan] when the image is built; put [Manifest.JSON] into
//     the image as manifest.json and [Manifest.Label] on the image, so that a registry client can
//     see the image's environments and files;
//  2. at start, choose the environment's name, normally the variable DEPLOY_ENV, and nothing else;
//  3. call [Activator.Activate], then start the service. The binary in cmd/envconfig does steps 2
//     and 3.
//
// In short:
//
//	root, err := os.OpenRoot("/etc/envconfig")
//	manifest, err := envconfig.Scan(root.FS())
//	key, value := manifest.Label()
//	…
//	activator := envconfig.Activator{}
//	result, err := activator.Activate(ctx, os.Getenv("DEPLOY_ENV"))
//	if errors.Is(err, envconfig.ErrUnknownEnvironment) {
//		os.Exit(78)
//	}
//
// Limits: the package merges no file contents (a file of an environment replaces the file of the
// same path in _base as a whole), fetches nothing over a network, changes no owner, and holds no
// secrets: every file in the image can be read by all users that can pull the image.
package envconfig
