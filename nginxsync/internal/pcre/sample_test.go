package pcre_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync/internal/pcre"
)

func TestSamples(t *testing.T) {
	t.Parallel()
	for expr, want := range map[string][]string{
		`\.php$`:                     {".php"},
		`^/a/(\d+)$`:                 {"/a/11", "/a/1"},
		`^/(?!api)(\w+)\Z`:           {"/xx", "/x"},
		`^/(?<kind>old|new)/(.*)$`:   {"/old/x", "/old/"},
		`^/(?>a+)b`:                  {"/aab", "/ab"},
		`^/a++b`:                     {"/aab", "/ab"},
		`^/(?=b)[^/]{2,3}$`:          nil, // b is not the first that is tried
		`^/[[:alpha:]]-[^a-zA-Z0-9]`: {"/x--"},
		`^(a|`:                       nil,
		`(*UTF8)x`:                   nil,
		`^$`:                         {""},
		`\Aab?\z`:                    {"ab", "a"},
		`^/\h?x`:                     {"/ x", "/x"},
		`a{2}`:                       {"aa"},
	} {
		require.Equal(t, want, pcre.Samples(expr, false), expr)
	}
	require.Equal(t, []string{".PHP"}, pcre.Samples(`\.PHP$`, true))
}
