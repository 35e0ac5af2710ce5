//go:build linux

package consulbundle_test

import (
	"cmp"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"

	realconsul "github.com/sluice-deploy/sluice/internal/testbed/consul"
	"github.com/sluice-deploy/sluice/nginxsync/bundle/bundletest"
	"github.com/sluice-deploy/sluice/nginxsync/bundle/consulbundle"
)

// put makes f all keys below the prefix, in one transaction where Consul allows it.
func put(t *testing.T, kv *api.KV, prefix string, f bundletest.Files) {
	t.Helper()
	var ops api.KVTxnOps
	pairs, _, err := kv.List(prefix, nil)
	require.NoError(t, err)
	for _, p := range pairs {
		if _, ok := f[strings.TrimPrefix(p.Key, prefix)]; !ok {
			ops = append(ops, &api.KVTxnOp{Verb: api.KVDelete, Key: p.Key})
		}
	}
	for name, text := range f {
		flags := uint64(bundletest.Mode(name))
		if flags == 0o644 {
			flags = 0 // stands for it
		}
		ops = append(ops, &api.KVTxnOp{Verb: api.KVSet, Key: prefix + name, Value: []byte(text),
			Flags: flags})
	}
	if len(ops) == 0 {
		return
	}
	ok, resp, _, err := kv.Txn(ops, nil)
	require.NoError(t, err)
	require.True(t, ok, "%+v", resp)
}

var number atomic.Int64

func TestContractOnConsul(t *testing.T) {
	t.Parallel()
	bundletest.Run(t, func(t *testing.T) *bundletest.Harness {
		s := realconsul.Start(t)
		if s.Process == nil {
			t.Skip("somebody else's Consul cannot be taken away")
		}
		prefix := fmt.Sprintf("test%d/", number.Add(1))
		source, err := consulbundle.New(consulbundle.Config{Client: s.Client, Prefix: prefix,
			Settle: 20 * time.Millisecond, Interval: 10 * time.Millisecond,
			Limits: bundletest.Limits})
		require.NoError(t, err)
		return &bundletest.Harness{
			Source:  source,
			NoLinks: true,
			Set:     func(f bundletest.Files) { put(t, s.Client.KV(), prefix, f) },
			Away:    s.Process.Kill,
			Back:    s.Process.Start,
		}
	})
}

// A Consul that is restored from a snapshot has an older index: the source is not stuck, and sees
// the restored tree.
func TestRestoredConsul(t *testing.T) {
	t.Parallel()
	s := realconsul.Start(t)
	if s.Process == nil {
		t.Skip("somebody else's Consul is not restored")
	}
	const prefix = "restored/"
	put(t, s.Client.KV(), prefix, bundletest.Files{"nginx.conf": "1"})
	source, err := consulbundle.New(consulbundle.Config{Client: s.Client, Prefix: prefix,
		Wait: time.Second, Settle: 20 * time.Millisecond, Interval: 10 * time.Millisecond})
	require.NoError(t, err)
	first, err := source.Fetch(t.Context(), "")
	require.NoError(t, err)
	snapshot := s.Snapshot(t)
	for i := range 50 {
		put(t, s.Client.KV(), "other/", bundletest.Files{"x": fmt.Sprint(i)})
	}
	put(t, s.Client.KV(), prefix, bundletest.Files{"nginx.conf": "2"})
	second, err := source.Fetch(t.Context(), first.Digest)
	require.NoError(t, err)
	got := make(chan string)
	go func() {
		b, err := source.Fetch(t.Context(), second.Digest)
		for err != nil && t.Context().Err() == nil {
			time.Sleep(time.Millisecond) // Consul may be busy with the restore
			b, err = source.Fetch(t.Context(), second.Digest)
		}
		if err == nil {
			got <- cmp.Or(b.Files["nginx.conf"].Text, "none")
		}
	}()
	s.Restore(t, snapshot)
	require.Equal(t, "1", <-got)
}
