package consulsource_test

import (
	"fmt"

	"github.com/hashicorp/consul/api"

	"github.com/sluice-deploy/sluice/nginxsync/consulsource"
)

func ExampleNew() {
	cfg := api.DefaultConfig()
	cfg.Address = "127.0.0.1:8500"
	source, err := consulsource.New(consulsource.Config{
		Consul:   cfg,
		Services: map[string]string{"hello_web": "hello-web"}, // by cluster
		Tag:      "sluice",                                    // and each service that has the tag
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, s := range source.Status().Services {
		fmt.Printf("%s comes from %s, %d instances\n", s.Cluster, s.Service, s.Instances)
	}
	// Output: hello_web comes from hello-web, 0 instances
}
