package fastjson

import (
	"bytes"
	"encoding/json"
	"testing"
)

// FuzzJSON shows that the Reader accepts no text that is not JSON, and reads the same as
// encoding/json.
func FuzzJSON(f *testing.F) {
	f.Add([]byte(
		`{"version":1,"environment":"te\u0073t","uid":-5,"files":[{"path":"a","mode":420,"x":[{},[],null,1e3]}],"dirs":["b"]}`))
	f.Add([]byte(`{"version":1,"files":[],"dirs":["\\"]} `))
	f.Add([]byte(`{"version":1,"dirs":["\`))
	f.Add([]byte(`{"version":"a\"\\\n\u007fü/~"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := NewReader(string(data))
		got := map[string]any{}
		r.Object(func(key string) {
			switch c := r.Peek(); {
			case c == '"':
				got[key] = r.Text()
			case c == '-' || c >= '0' && c <= '9':
				got[key] = float64(r.Number())
			default:
				delete(got, key)
				r.Skip()
			}
		})
		if r.End() != nil {
			return
		}
		var want map[string]any
		theirs := json.NewDecoder(bytes.NewReader(data))
		theirs.UseNumber() // one of no Go type is JSON all the same
		if err := theirs.Decode(&want); err != nil {
			t.Fatalf("accepted what encoding/json does not: %v", err)
		}
		for key, value := range want {
			if number, ok := value.(json.Number); ok {
				value, _ = number.Float64()
			} else if _, ok := value.(string); !ok {
				continue
			}
			if got[key] != value {
				t.Fatalf("%q: %v, encoding/json reads %v", key, got[key], value)
			}
		}
		text, _ := got["version"].(string)
		var again string
		if err := json.Unmarshal(AppendText(nil, text), &again); err != nil || again != text {
			t.Fatalf("%q is written as %s", text, AppendText(nil, text))
		}
	})
}
