package platform

import (
	"log/slog"
	"os"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/livecatalog"
	"github.com/sluice-deploy/sluice/nginxsync/bundle/dirbundle"
)

// Catalog returns the Dockerfile templates on offer now.
func (p *Platform) Catalog() *builder.Catalog {
	if p.templates == nil {
		return builder.Default()
	}
	return p.templates.Catalog()
}

// openTemplates reads the templates of a directory, which Live.Run follows from then on.
func openTemplates(dir string, logger *slog.Logger) (*livecatalog.Live, error) {
	first, err := builder.Load(os.DirFS(dir))
	if err != nil {
		return nil, err
	}
	source, err := dirbundle.New(dirbundle.Config{Dir: dir})
	if err != nil {
		return nil, err
	}
	return livecatalog.New(livecatalog.Config{Source: source, First: first, Logger: logger})
}
