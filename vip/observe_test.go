package vip_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
)

func TestObserve(t *testing.T) {
	t.Parallel()
	c := newClock()
	var calls []string
	a := allocator(t, vip.NewMemStore(), c, vip.Config{Observe: func(call string, _ time.Duration,
		err error) {
		if !strings.HasPrefix(call, "lock ") {
			calls = append(calls, fmt.Sprint(call, " ", err == nil))
		}
	}}, pool(t, "p", "10.0.0.1"))
	l := allocate(t, a, vip.Request{Owner: owner("T1")})
	_, err := a.Allocate(t.Context(), vip.Request{Owner: owner("T2")})
	require.Error(t, err)
	release(t, a, l)
	_, err = a.Quarantine(t.Context(), l.Addr, "bad", 0)
	require.NoError(t, err)
	require.Equal(t, []string{"allocate true", "allocate false", "release true", "quarantine true"},
		calls)
}
