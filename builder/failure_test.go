package builder_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/builder"
)

func TestFailureOf(t *testing.T) {
	t.Parallel()
	require.Nil(t, builder.FailureOf(nil))
	for name, c := range map[string]struct {
		err  error
		want builder.Failure
	}{
		"dockerfile": {&builder.DockerfileError{Line: 3, Instruction: "COPY a /a",
			Err: errors.New("no such file")},
			builder.Failure{Reason: builder.ReasonDockerfile, Line: 3, Instruction: "COPY a /a"}},
		"unsupported": {&builder.UnsupportedError{Line: 4, What: "RUN", Hint: "use another engine"},
			builder.Failure{Reason: builder.ReasonUnsupported, Line: 4, Instruction: "RUN"}},
		"tag":       {&builder.TagExistsError{}, builder.Failure{Reason: builder.ReasonTagExists}},
		"request":   {builder.ErrInvalid, builder.Failure{Reason: builder.ReasonRequest}},
		"deadline":  {context.DeadlineExceeded, builder.Failure{Reason: builder.ReasonDeadline}},
		"cancelled": {context.Canceled, builder.Failure{Reason: builder.ReasonCancelled}},
		"other": {errors.New("disk full"), builder.Failure{Reason: builder.ReasonInfrastructure,
			Retryable: true}},
		"an engine's own": {&builder.Failure{Reason: builder.ReasonRegistryLimit, Retryable: true,
			Err: errors.New("429")}, builder.Failure{Reason: builder.ReasonRegistryLimit,
			Retryable: true}},
	} {
		err := fmt.Errorf("build: %w", c.err)
		got := builder.FailureOf(err)
		require.ErrorIs(t, got, c.err, name)
		require.Equal(t, err.Error(), got.Message, name)
		require.Equal(t, err.Error(), got.Error(), name)
		got.Message, got.Hint, got.Err = "", "", nil
		require.Equal(t, c.want, *got, name)
	}
}

func TestFailureExplained(t *testing.T) {
	t.Parallel()
	list := []builder.Instruction{{Line: 1, EndLine: 1, Rendered: "FROM a"}, {Line: 2, EndLine: 4,
		Rendered: "RUN b", Values: []builder.Origin{{Param: "BUILD_IP"}, {Param: "CLUSTER_NAME"}}}}
	got := builder.Failure{Line: 3}.Explained(list)
	require.Equal(t, []string{"BUILD_IP", "CLUSTER_NAME"}, got.Params)
	require.Equal(t, "RUN b", got.Instruction)
	require.Empty(t, builder.Failure{}.Explained(list).Params)
}

// TestReasons: docs/builds.md has a row for each reason.
func TestReasons(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("failure.go")
	require.NoError(t, err)
	page, err := os.ReadFile("../docs/builds.md")
	require.NoError(t, err)
	found := regexp.MustCompile(`Reason = "(\w+)"`).FindAllStringSubmatch(string(source), -1)
	require.Greater(t, len(found), 10)
	for _, m := range found {
		require.True(t, strings.Contains(string(page), "\n| "+m[1]+" | "), "no row for %s", m[1])
	}
}
