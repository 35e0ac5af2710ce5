package kubejob_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/kubernetes"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/kubejob"
)

const someImage = "registry.example.com/builder@sha256:" +
	"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

func TestBadConfig(t *testing.T) {
	t.Parallel()
	for field, change := range map[string]func(*kubejob.Config){
		"Client":          func(c *kubejob.Config) { c.Client = nil },
		"Namespace":       func(c *kubejob.Config) { c.Namespace = "Builds" },
		"Image":           func(c *kubejob.Config) { c.Image = "builder:1" },
		"ToolImage":       func(c *kubejob.Config) { c.ToolImage = "builder:1" },
		"Profile":         func(c *kubejob.Config) { c.Profile = "root" },
		"PushSecret":      func(c *kubejob.Config) { c.PushSecret = "a/b" },
		"PullSecrets[0]":  func(c *kubejob.Config) { c.PullSecrets = []string{""} },
		"BuildSecrets[1]": func(c *kubejob.Config) { c.BuildSecrets = []string{"a", "B"} },
		"Cache":           func(c *kubejob.Config) { c.Cache = "cache" },
		"Deadline":        func(c *kubejob.Config) { c.Deadline = -1 },
		"StartDeadline":   func(c *kubejob.Config) { c.StartDeadline = -time.Second },
		"Keep":            func(c *kubejob.Config) { c.Keep = -1 },
		"LogPatience":     func(c *kubejob.Config) { c.LogPatience = -1 },
		"Poll":            func(c *kubejob.Config) { c.Poll = -1 },
		"MaxLog":          func(c *kubejob.Config) { c.MaxLog = -1 },
		"Insecure[0]":     func(c *kubejob.Config) { c.Insecure = []string{"http://a"} },
	} {
		good := kubejob.Config{Client: &kubernetes.Clientset{}, Namespace: "builds",
			Image: someImage}
		_, err := kubejob.New(good)
		require.NoError(t, err)
		change(&good)
		_, err = kubejob.New(good)
		require.ErrorIs(t, err, builder.ErrInvalid, field)
		require.Contains(t, err.Error(), "kubejob: Config."+field+":")
	}
	_, err := kubejob.New(kubejob.Config{})
	require.Equal(t, 2, strings.Count(err.Error(), "\n"), "all problems at once: %v", err)
}
