package builder

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
)

// CheckContext looks for every file that Template.Context names in a build context and returns all
// that are missing at once, joined, as [ErrInvalid]; a build would stop at the first. Errors of
// values are those of [Template.Render].
func (t *Template) CheckContext(files fs.FS, values map[string]string) error {
	full, err := t.complete(values)
	if err != nil {
		return err
	}
	var problems []error
	for _, f := range t.Context {
		uses, err := placeholders([]byte(f.Path))
		if err != nil {
			return err
		}
		name := path.Clean(string(fill([]byte(f.Path), uses, full)))
		_, err = fs.Stat(files, name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			problems = append(problems, fmt.Errorf("template %s: build context lacks %s: %s: %w",
				t.ID(), name, f.Description, ErrInvalid))
		case err != nil:
			problems = append(problems, fmt.Errorf("template %s: build context: %w", t.ID(), err))
		}
	}
	return errors.Join(problems...)
}
