package luadriver

// WithCrash is cfg with a file: a worker that makes a push ends at the step that the file names.
func WithCrash(cfg SnippetConfig, file string) SnippetConfig {
	cfg.crash = file
	return cfg
}

// Alone is cfg for an Nginx that has no UDP sockets: its workers do not wake each other.
func Alone(cfg SnippetConfig) SnippetConfig {
	cfg.alone = true
	return cfg
}
