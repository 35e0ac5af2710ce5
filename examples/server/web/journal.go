package web

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/sluice-deploy/sluice/examples/server/platform"
)

// entriesPerPage is how many entries of the journal one answer has when the client does not say.
const entriesPerPage = 100

// journal answers with a part of the journal, and with a link to the next one (RFC 8288): "prev"
// leads to older entries, "next" to newer ones.
func (w *web) journal(rw http.ResponseWriter, r *http.Request) {
	values := r.URL.Query()
	q, err := journalQuery(values)
	if err != nil {
		w.fail(rw, r, err)
		return
	}
	entries, more, err := w.Platform.JournalPage(r.Context(), q)
	if err != nil {
		w.fail(rw, r, err)
		return
	}
	if more {
		relation, cursor, at := "prev", "before", entries[0].At
		if q.After > 0 {
			relation, cursor, at = "next", "after", entries[len(entries)-1].At
		}
		values.Set(cursor, strconv.FormatUint(at, 10))
		rw.Header().Set("Link", fmt.Sprintf(`<%s?%s>; rel="%s"`, r.URL.Path, values.Encode(),
			relation))
	}
	writeJSON(rw, http.StatusOK, entries)
}

func journalQuery(values url.Values) (q platform.JournalQuery, err error) {
	q = platform.JournalQuery{Cluster: values.Get("cluster"),
		Environment: values.Get("environment"), Task: values.Get("task"), Limit: entriesPerPage}
	number := func(name string, most uint64) uint64 {
		text := values.Get(name)
		if text == "" {
			return 0
		}
		n, parseErr := strconv.ParseUint(text, 10, 64)
		if parseErr != nil || n < 1 || n > most {
			err = cmp.Or(err, fmt.Errorf("%s: %q: want a number from 1 to %d: %w", name, text, most,
				platform.ErrInvalid))
		}
		return n
	}
	q.After, q.Before = number("after", 1<<63), number("before", 1<<63)
	if values.Has("limit") {
		q.Limit = int(number("limit", platform.MaxEntries))
	}
	return q, err
}
