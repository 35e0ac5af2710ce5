// Package soak sets the length of a test's work: shortened, with fixed seeds, in make test and in
// plain go test, whole in make soak. A test that imports the package is found and run by make soak;
// there is no list.
package soak

import (
	"os"
	"strconv"
)

// Variable is the environment variable that make soak sets to "1".
const Variable = "SLUICE_SOAK"

// Whole reports whether the test runs under make soak. Any value of Variable that strconv.ParseBool
// does not take as true means no.
func Whole() bool {
	whole, _ := strconv.ParseBool(os.Getenv(Variable))
	return whole
}

// Count returns how often a test repeats its work: whole under make soak, short otherwise.
func Count(short, whole int) int {
	if Whole() {
		return whole
	}
	return short
}
