package story

import (
	"fmt"
	"io"
	"strings"
)

// report writes the story down and counts.
type report struct {
	out           io.Writer
	steps, failed int
}

// part opens the next part of the story.
func (r *report) part(title string) { fmt.Fprintf(r.out, "\n%s\n", title) }

// step reports a request and its result. Every want that does not hold makes the step a failed one.
func (r *report) step(asked string, seen any, err error, wants ...want) {
	r.steps++
	var wrong []string
	if err != nil {
		wrong = append(wrong, err.Error())
	}
	for _, w := range wants {
		if err == nil && w.got != w.want {
			wrong = append(wrong, fmt.Sprintf("%s is %v, expected %v", w.what, w.got, w.want))
		}
	}
	mark := "ok  "
	if len(wrong) > 0 {
		r.failed++
		mark = "FAIL"
	}
	fmt.Fprintf(r.out, "  %s  %s\n", mark, asked)
	if err == nil {
		fmt.Fprintf(r.out, "        %s\n", strings.ReplaceAll(fmt.Sprint(seen), "\n", "\n        "))
	}
	for _, line := range wrong {
		fmt.Fprintf(r.out, "        wrong: %s\n", line)
	}
}

// want is one thing that a step has to show. The values are compared with ==.
type want struct {
	what      string
	got, want any
}
