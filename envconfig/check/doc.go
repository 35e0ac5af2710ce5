// Package check finds mistakes in the configuration of all environments of an image while the image
// is built, so that they do not show first in production: a file or a key that one environment
// lacks, a type that differs, a syntax error, "localhost" in production, production's host in test,
// a password in plain text, a start script that will not pass SIGTERM on.
//
// The embedder's work, in order: read the manifest with [envconfig.Scan], the optional [Config]
// with [ParseConfig], call [Run], and decide whether findings fail the build. The binary
// cmd/envconfig-check does this.
//
//	manifest, err := envconfig.Scan(root.FS())
//	…
//	report, err := check.Run(root.FS(), manifest, check.Config{}, time.Now())
//	for _, f := range report.Findings {
//		fmt.Println(f)
//	}
//
// The limits: it expands no references, evaluates no shell, reads nothing but the source directory,
// and never shows a value: findings name environment, file, line and key. The file's name
// determines the format. Properties, YAML, JSON, TOML, XML, INI and dotenv are read by their rules;
// configuration files of other formats, scripts and programs are read line by line for values and
// have no keys that could be compared; anything else is looked at for tokens.
package check
