package entry

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func ExampleEnviron() {
	e := Environ{Unset: []string{"AWS_*"}, Set: []string{"MODE=batch", "MODE=server"}}
	fmt.Println(e.Apply([]string{"PATH=/bin", "AWS_SECRET=x", "MODE=client"}))
	// Output: [PATH=/bin MODE=server]
}

func TestEnvironValidates(t *testing.T) {
	t.Parallel()
	good := Environ{Unset: []string{"A_*"}, Set: []string{"A=", "B=c=d"}}
	require.NoError(t, good.Validate())
	bad := Environ{Unset: []string{"A", "["}, Set: []string{"s3cret", "=s3cret", "A=1",
		"B=s3cret\x00"}}
	err := bad.Validate()
	require.ErrorIs(t, err, ErrInvalid)
	for _, want := range []string{
		`Environ.Unset[1]: "["`, "Environ.Set[0]", "Environ.Set[1]", "Environ.Set[3]",
	} {
		require.ErrorContains(t, err, want)
	}
	require.NotContains(t, err.Error(), "s3cret")
}
