package vip_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
)

func TestLeaseJSON(t *testing.T) {
	t.Parallel()
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{}, pool(t, "p", "10.0.0.0/24"))
	for ttl, text := range map[time.Duration]string{
		time.Hour: `"ttl":"1h0m0s"`, 90 * time.Second: `"ttl":"1m30s"`,
		vip.Forever: `"ttl":"forever"`, 1: `"ttl":"1ns"`,
	} {
		l := allocate(t, a, vip.Request{Owner: owner("T-"+text[7:9], "web", "v1"), TTL: ttl})
		data, err := json.Marshal(l)
		require.NoError(t, err)
		require.Contains(t, string(data), text)
		var again vip.Lease
		require.NoError(t, json.Unmarshal(data, &again))
		require.Equal(t, l, again)
		data, err = json.Marshal(map[string]*vip.Lease{"lease": &l})
		require.NoError(t, err)
		require.Contains(t, string(data), text, "as a part of something else")
	}
	for text, want := range map[string]time.Duration{
		`{"id":"x","ttl":3600000000000}`: time.Hour, `{"id":"x","ttl":-1}`: vip.Forever,
		`{"id":"x","ttl":"90s"}`: 90 * time.Second,
		`{"id":"x"}`:             0,
	} {
		var l vip.Lease
		require.NoError(t, json.Unmarshal([]byte(text), &l), text)
		require.Equal(t, want, l.TTL, text)
		require.Equal(t, "x", l.ID)
	}
	for _, text := range []string{`{"ttl":"soon"}`, `{"ttl":"-5s"}`, `{"ttl":"0s"}`, `{"ttl":1.5}`,
		`{"ttl":{}}`, `{"id":7}`} {
		require.Error(t, json.Unmarshal([]byte(text), &vip.Lease{}), text)
	}
	free, err := json.Marshal(vip.Lease{Addr: addr("10.0.0.1")})
	require.NoError(t, err)
	require.NotContains(t, string(free), "ttl")
}
