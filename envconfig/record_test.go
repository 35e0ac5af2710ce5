package envconfig

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Every version so far has written the record in this form.
func TestRecordFormat(t *testing.T) {
	t.Parallel()
	const text = `{"version":1,"environment":"test","digest":"sha256:d","manifest":"sha256:m","uid":0,` +
		`"activated":"2026-11-29T12:00:00.5Z","files":[` +
		`{"path":"opt/\"a\\","sha256":"00","mode":420},` +
		`{"path":"opt/b","sha256":"01","mode":416,"action":"render"},` +
		`{"path":"srv/c","sha256":"","mode":420,"action":"link","link":"../etc/c"}],"dirs":["opt","srv"]}` + "\n"
	r := parseRecord(text, nil)
	require.NotNil(t, r)
	require.Equal(t, text, string(r.json()))
	require.Nil(t, parseRecord(`{"version":2}`, nil))
}
