package strictjson_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/strictjson"
)

type Shared struct {
	Actor string `json:"actor"`
}

type own struct{ Text string }

func (o *own) UnmarshalJSON(data []byte) error { return json.Unmarshal(data, &o.Text) }

type request struct {
	Shared
	Cluster string            `json:"cluster"`
	Params  map[string]string `json:"params,omitempty"`
	Parts   []struct {
		Name string `json:"name"`
	} `json:"parts"`
	Nested *struct {
		Deep map[string]Shared `json:"deep"`
	} `json:"nested"`
	Until  time.Time `json:"until,omitzero"`
	Own    any       `json:"own"`
	Self   *own      `json:"self"`
	Hidden string    `json:"-"`
	Bare   int
}

func TestDecode(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`{}`, ` null `, `{"cluster":"a","actor":"b","Bare":1,"until":"2026-01-02T03:04:05Z"}`,
		`{"params":{"a":"1","A":"2"},"own":{"x":1,"X":[{"y":1},{"y":2}]}}`,
		`{"parts":[{"name":"a"},{"name":"b"}],"nested":{"deep":{"k":{"actor":"a"}}},"self":"x"}`,
	} {
		require.NoError(t, strictjson.Decode([]byte(text), new(request)), text)
	}
	long := strings.Repeat("x", 200)
	for text, want := range map[string]string{
		`{"cluster":"a","cluster":"b"}`:               `field "cluster" comes twice`,
		`{"cluster":"a","\u0063luster":"b"}`:          `field "cluster" comes twice`,
		`{"cluster":"a","Cluster":"b"}`:               `field "Cluster": want "cluster"`,
		`{"CLUSTER":"a"}`:                             `field "CLUSTER": want "cluster"`,
		`{"Actor":"a"}`:                               `field "Actor": want "actor"`,
		`{"clu\u017fter":"a"}`:                        `: want "cluster"`, // long s
		`{"bare":1}`:                                  `field "bare": want "Bare"`,
		`{"params":{"a":"1","a":"2"}}`:                `field "params.a" comes twice`,
		`{"parts":[{"name":"a"},{"Name":"b"}]}`:       `field "parts[1].Name": want "name"`,
		`{"parts":[{"name":"a","name":"b"}]}`:         `field "parts[0].name" comes twice`,
		`{"nested":{"Deep":{}}}`:                      `field "nested.Deep": want "deep"`,
		`{"nested":{"deep":{"k":{"ACTOR":"a"}}}}`:     `"nested.deep.k.ACTOR": want "actor"`,
		`{"own":{"x":[1,{"y":1,"y":2}]}}`:             `field "own.x[1].y" comes twice`,
		`{"Hidden":"x"}`:                              `unknown field "Hidden"`,
		`{"other":1}`:                                 `unknown field "other"`,
		`{"cluster":"a"} {}`:                          `data after the end`,
		`{"cluster":"a"}x`:                            `data after the end`,
		`{"cluster":"a`:                               `unexpected EOF`,
		"{\"cluster\":\"\xff\"}":                      `want UTF-8`,
		`{"cluster":1}`:                               `cannot unmarshal number`,
		`{"own":{"` + long + `":1,"` + long + `":2}}`: `comes twice`,
	} {
		err := strictjson.Decode([]byte(text), new(request))
		require.ErrorContains(t, err, want, text)
		require.Less(t, len(err.Error()), 200, text)
	}
	require.ErrorIs(t, strictjson.Decode(nil, new(request)), io.EOF)
}

// FuzzDecode holds Decode to json.Unmarshal: an accepted text means the same there.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{`{"cluster":"a","Cluster":"b"}`, `{"nested":{"deep":{"k":null}}}`,
		`{"parts":[{},[]]}`, `[]`, `{"own":[[[{}]]]}`, `null`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var got, want request
		if strictjson.Decode(data, &got) != nil {
			return
		}
		var syntax *json.SyntaxError
		require.False(t, errors.As(json.Unmarshal(data, &want), &syntax))
		require.Equal(t, want, got)
	})
}

func ExampleDecode() {
	var in struct {
		Cluster string `json:"cluster"`
	}
	fmt.Println(strictjson.Decode([]byte(`{"cluster":"a","Cluster":"b"}`), &in))
	// Output: field "Cluster": want "cluster": the case of letters counts
}
