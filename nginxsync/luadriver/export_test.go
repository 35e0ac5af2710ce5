package luadriver

// WithCrash is cfg with a file: a worker that makes a push ends at the step that the file names.
func WithCrash(cfg SnippetConfig, file string) SnippetConfig {
	cfg.crash = file
	return cfg
}
