package fastjson_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/envconfig/internal/fastjson"
)

func ExampleReader() {
	var name string
	var paths []string
	r := fastjson.NewReader(`{"name":"test","more":[1,{}],"paths":["etc/a","etc/b"]}`)
	r.Object(func(key string) {
		switch key {
		case "name":
			name = r.Text()
		case "paths":
			paths = r.Texts()
		default:
			r.Skip()
		}
	})
	fmt.Println(name, paths, r.End())
	// Output: test [etc/a etc/b] <nil>
}

func TestReader(t *testing.T) {
	t.Parallel()
	t.Run("raw part is compacted as json.Marshal writes it", func(t *testing.T) {
		t.Parallel()
		r := fastjson.NewReader(`{"a": { "b" : "c \" d" , "e": [1, 2] } }`)
		var raw string
		r.Object(func(string) { raw = r.Raw(r.Skip) })
		require.NoError(t, r.End())
		require.Equal(t, `{"b":"c \" d","e":[1,2]}`, string(fastjson.Compact(raw)))
	})
	t.Run("first error stays", func(t *testing.T) {
		t.Parallel()
		r := fastjson.NewReader(`{"a": x}`)
		r.Object(func(string) { r.Number() })
		r.Fail("nothing else")
		require.ErrorContains(t, r.End(), "a value expected at byte 7")
		require.Equal(t, r.End(), r.Err())
	})
}
