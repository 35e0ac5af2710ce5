package testbed

import (
	_ "github.com/Shopify/toxiproxy/v2/client"
	_ "github.com/fsnotify/fsnotify"
	_ "github.com/hashicorp/consul/api"
	_ "k8s.io/client-go/informers"
	_ "k8s.io/client-go/kubernetes"
	_ "k8s.io/client-go/kubernetes/fake"
	_ "k8s.io/client-go/tools/clientcmd"
	_ "k8s.io/client-go/tools/remotecommand"
)
