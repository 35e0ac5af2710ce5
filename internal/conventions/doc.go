// Package conventions holds the code of the five packages and their leaves to rules that no
// compiler knows and no single package's test can see. It has tests only. Each reads the source of
// all non-test files and reports a breach with file and line.
//
// A breach that stays gets an entry in exceptions, with its reason; an entry that nothing needs any
// more fails, too, so the table only shrinks.
package conventions
