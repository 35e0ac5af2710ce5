package soak_test

import (
	"fmt"
	"testing"

	"github.com/sluice-deploy/sluice/internal/soak"
)

func ExampleCount() {
	seeds := soak.Count(10, 2000)
	fmt.Println(seeds == 10 || seeds == 2000)
	// Output: true
}

func TestCount(t *testing.T) {
	for value, want := range map[string]int{"": 3, "0": 3, "no": 3, "1": 70, "true": 70} {
		t.Setenv(soak.Variable, value)
		if got := soak.Count(3, 70); got != want {
			t.Errorf("%s=%q: Count is %d, want %d", soak.Variable, value, got, want)
		}
	}
}
