package promote

import (
	"encoding/json"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestQuickPlace changes records at random: the quick reader gives up, or says as encoding/json
// does.
func TestQuickPlace(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`{"seq":1,"seq":2}`, `{"SEQ":1}`, `{"seq":1,"Cluster":"a"}`, `{"seq":1,"cluster":"a\"b"}`,
		`{ "seq":1}`, `{"seq":1.5}`, `{"seq":-1}`, `{"seq":1,}`, `{"seq":1}x`, `{"seq":}`, `{`, "",
		`{"seq":1,"cluster":7}`, `{"seq":1,"cl\u0075ster":"b"}`, `{"seq":1,"cluster":"é"}`, `{}`,
	} {
		_, ok := quickPlace([]byte(text))
		require.False(t, ok, text)
	}
	e := Entry{Seq: 17, Time: time.Date(2026, 3, 1, 12, 0, 0, 5, time.UTC), Kind: Started,
		Target: testTarget, Actor: `a "quoted" \ name`, Reason: `ends in \`,
		Facts: map[string]string{"cluster": `{"seq":9,"cluster":"other"}`, "]}": "[{,"}}
	require.NoError(t, e.seal(""))
	record, err := e.Record()
	require.NoError(t, err)
	at, ok := quickPlace(record)
	require.True(t, ok)
	require.Equal(t, recordPlace{Seq: 17, Cluster: "web"}, at)
	random := rand.New(rand.NewPCG(16, 96))
	const letters = `"\{}[],:09seqcluster `
	quick := 0
	for range 50_000 {
		changed := append([]byte(nil), record...)
		for range 1 + random.IntN(3) {
			changed[random.IntN(len(changed))] = letters[random.IntN(len(letters))]
		}
		at, ok := quickPlace(changed)
		var want recordPlace
		if ok && json.Unmarshal(changed, &want) == nil {
			quick++
			require.Equal(t, want, at, string(changed))
		}
	}
	require.Greater(t, quick, 1000)
}
