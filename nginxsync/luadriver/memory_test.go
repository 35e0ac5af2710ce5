//go:build linux

package luadriver_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
)

// A dictionary that is full to the last byte loses no row by any later push or takeover.
func TestFullDictionaryLosesNothing(t *testing.T) {
	t.Parallel()
	b := start(t, 128<<10)
	last := nginxsync.NewRoutes(1, nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{}})
	require.NoError(t, b.driver.Apply(t.Context(), last.All()))
	number := uint64(1)
	add := func(size int) error {
		number++
		name := fmt.Sprintf("c%d", number)
		s := nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{
			name: one(strings.Repeat("x", size), "v1", plainPort)}}
		for cluster, list := range last.Snapshot.Baseline {
			s.Baseline[cluster] = list
		}
		next := nginxsync.NewRoutes(number, s)
		delta := nginxsync.NewDelta(last, next)
		delta.Epoch, delta.Writer = number, fmt.Sprintf("w%d", number)
		err := b.driver.Apply(t.Context(), delta)
		if err == nil {
			last = next
		}
		return err
	}
	for _, size := range []int{120, 60, 1} { // entries of 512, 256 and 128 bytes
		for {
			if err := add(size); err != nil {
				require.ErrorIs(t, err, nginxsync.ErrTooLarge)
				break
			}
		}
		for range 20 {
			for _, size := range []int{120, 1, 60} {
				if err := add(size); err != nil && !errors.Is(err, nginxsync.ErrTooLarge) {
					t.Fatal(err)
				}
			}
		}
		got, err := b.driver.Routes(t.Context())
		require.NoError(t, err)
		require.Equal(t, last, got)
	}
}
