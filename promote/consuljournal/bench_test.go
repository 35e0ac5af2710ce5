//go:build linux

package consuljournal_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed/consul"
	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/consuljournal"
)

// BenchmarkAppend appends to one cluster and sends bare transactions of the same two operations and
// the same sizes, in turn: "of-txn" is the time of an append over that of a transaction.
func BenchmarkAppend(b *testing.B) {
	client := consul.Start(b).Client
	j := open(b, client, consuljournal.Config{})
	prefix := "sluice-test/bare/"
	b.Cleanup(func() { _, _ = client.KV().DeleteTree(prefix, nil) })
	var appends, bare time.Duration
	var index uint64
	seq := uint64(0)
	for b.Loop() {
		seq++
		e := bindingEntry("hello_web", seq)
		record, err := e.Record()
		require.NoError(b, err)
		start := time.Now()
		_, err = j.Append(b.Context(), e)
		appends += time.Since(start)
		require.NoError(b, err)

		start = time.Now()
		ok, answer, _, err := client.Txn().Txn(api.TxnOps{
			{KV: &api.KVTxnOp{Verb: api.KVCAS, Key: prefix + "head", Value: make([]byte, 80),
				Index: index}},
			{KV: &api.KVTxnOp{Verb: api.KVCAS, Key: prefix + fmt.Sprint(seq), Value: record}},
		}, nil)
		bare += time.Since(start)
		require.NoError(b, err)
		require.True(b, ok)
		index = answer.Results[0].KV.ModifyIndex
	}
	b.ReportMetric(float64(appends)/float64(bare), "of-txn")
}

// BenchmarkThousandClusters appends to 1,000 clusters at once.
func BenchmarkThousandClusters(b *testing.B) {
	client := consul.Start(b).Client
	j := open(b, client, consuljournal.Config{})
	seq := uint64(0)
	for b.Loop() {
		seq++
		var all sync.WaitGroup
		for n := range 1000 {
			all.Go(func() {
				_, err := j.Append(b.Context(), bindingEntry(fmt.Sprint("c", n), seq))
				if err != nil {
					b.Error(err)
				}
			})
		}
		all.Wait()
	}
	b.ReportMetric(float64(seq*1000)/b.Elapsed().Seconds(), "appends/s")
}

// bindingEntry is an entry of the size of a promotion's.
func bindingEntry(cluster string, seq uint64) promote.Entry {
	b := binding(cluster, int(seq))
	return promote.Entry{Seq: seq, Target: promote.Target{Cluster: cluster, Environment: "test"},
		Version: b.Version, Digest: b.Digest, Actor: b.Actor, Repository: b.Repository,
		Time: time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)}
}
