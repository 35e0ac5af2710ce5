package envconfig

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkActivate puts 1,000 files of 2 kB in place where there are none yet, and where they are
// already.
func BenchmarkActivate(b *testing.B) {
	root := b.TempDir()
	source := filepath.Join(root, DefaultSource)
	for i := range 1000 {
		name := filepath.Join(source, fmt.Sprintf("envs/test/opt/d%d/f%d", i/100, i))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(name, bytes.Repeat([]byte("x"), 2000), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	m, err := Scan(os.DirFS(source))
	if err != nil {
		b.Fatal(err)
	}
	a := &Activator{Root: root, Source: source, State: filepath.Join(root, "run"), Manifest: m}
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			if err := os.RemoveAll(filepath.Join(root, "opt")); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			if _, err := a.Activate(b.Context(), "test"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("second", func(b *testing.B) {
		for b.Loop() {
			if _, err := a.Activate(b.Context(), "test"); err != nil {
				b.Fatal(err)
			}
		}
	})
}
