package entry

import "fmt"

func ExampleEnviron() {
	e := Environ{Unset: []string{"AWS_*"}, Set: []string{"MODE=batch", "MODE=server"}}
	fmt.Println(e.Apply([]string{"PATH=/bin", "AWS_SECRET=x", "MODE=client"}))
	// Output: [PATH=/bin MODE=server]
}
