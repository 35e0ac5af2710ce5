package agenthttp

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check/checktest"
)

func TestRemoteConfig(t *testing.T) {
	t.Parallel()
	at := func(url string) func(*RemoteConfig) {
		return func(cfg *RemoteConfig) { cfg.URL = url }
	}
	checktest.Run(t, nginxsync.ErrInvalid, RemoteConfig{URL: "https://10.0.1.1:9182/",
		Token: "a-token-of-the-test"},
		func(cfg RemoteConfig) error { _, err := NewRemoteClient(cfg); return err },
		map[string][]func(*RemoteConfig){
			"URL": {at(""), at("10.0.1.1:9182"), at("ftp://a"), at("http://a/b"),
				at("http://u:secret@a"), at("http://a?b")},
			"Token": {
				func(cfg *RemoteConfig) { cfg.Token = "" },
				func(cfg *RemoteConfig) { cfg.Token = "short" },
				func(cfg *RemoteConfig) { cfg.Token = "a token with many spaces" },
			},
			"Timeout": {func(cfg *RemoteConfig) { cfg.Timeout = -1 }},
		}, "TLS")
	_, err := NewRemoteClient(RemoteConfig{URL: "http://u:s3cret@a", Token: "hunter2"})
	require.NotContains(t, err.Error(), "s3cret")
	require.NotContains(t, err.Error(), "hunter2")
}
