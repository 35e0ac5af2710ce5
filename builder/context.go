package builder

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
)

// CheckContext looks whether a build context has what Template.Context says for these values, and reports everything that
// is missing at once, as [ErrRefused]; a build would stop at the first. Errors of values are those of [Template.Render].
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
			problems = append(problems, fmt.Errorf("template %s: build context %w: lacks %s: %s", t.Name, ErrRefused, name, f.Description))
		case err != nil:
			problems = append(problems, fmt.Errorf("template %s: build context: %w", t.Name, err))
		}
	}
	return errors.Join(problems...)
}
