package program

import "os"

// Env is the environment of a client: the search path, proxies and certificates of this process,
// messages in English, a home without a configuration, and extra.
func Env(home string, extra ...string) []string {
	env := []string{"LC_ALL=C", "HOME=" + home}
	for _, name := range []string{"PATH", "TMPDIR", "http_proxy", "https_proxy", "no_proxy",
		"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "SystemRoot"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return append(env, extra...)
}
