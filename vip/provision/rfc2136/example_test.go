package rfc2136_test

import (
	"fmt"

	"github.com/sluice-deploy/sluice/vip/provision/rfc2136"
)

func ExampleNew() {
	_, err := rfc2136.New(rfc2136.Config{
		Server: "192.0.2.53:53", Zone: "test.example.com", Owner: "sluice-test",
		Key: rfc2136.Key{Name: "sluice", Secret: "c2x1aWNlIGV4YW1wbGUga2V5"},
	})
	fmt.Println(err)
	// Output: <nil>
}
