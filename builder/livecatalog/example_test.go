package livecatalog_test

import (
	"fmt"

	"github.com/sluice-deploy/sluice/builder/livecatalog"
	"github.com/sluice-deploy/sluice/nginxsync/bundle/dirbundle"
)

func Example() {
	source, err := dirbundle.New(dirbundle.Config{Dir: "/srv/templates"})
	if err != nil {
		fmt.Println(err)
		return
	}
	live, err := livecatalog.New(livecatalog.Config{Source: source})
	if err != nil {
		fmt.Println(err)
		return
	}
	// go live.Run(ctx)
	newest, err := live.Catalog().Template("tomcat")
	fmt.Println(newest.ID(), err)
	// Output: tomcat@2 <nil>
}
