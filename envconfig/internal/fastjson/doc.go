// Package fastjson reads and writes the small JSON files that envconfig itself writes: the
// manifest, the record of the active environment and the journal of a transaction.
//
// A start of a container reads two of these files and takes a few milliseconds; encoding/json would
// spend a third of that on looking at types. The caller drives the [Reader] along the form it
// expects:
//
//	r := fastjson.NewReader(text)
//	r.Object(func(key string) {
//		switch key {
//		case "version":
//			version = r.Number()
//		default:
//			r.Skip()
//		}
//	})
//	err := r.End()
//
// The Reader accepts no text that is not JSON. It does not decode into types, and it does not
// stream: the whole text is in memory, and the strings it returns are parts of it.
package fastjson
