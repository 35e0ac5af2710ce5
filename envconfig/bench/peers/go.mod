// Peers that no Debian package brings, pinned; no other module depends on them.
module github.com/sluice-deploy/sluice/envconfig/bench/peers

go 1.26

tool github.com/jwilder/dockerize

require (
	dario.cat/mergo v1.0.2 // indirect
	github.com/Masterminds/goutils v1.1.1 // indirect
	github.com/Masterminds/semver/v3 v3.4.0 // indirect
	github.com/Masterminds/sprig/v3 v3.3.0 // indirect
	github.com/elgs/gosplitargs v0.0.0-20241205072753-cbd889c0f906 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/hpcloud/tail v1.0.0 // indirect
	github.com/huandu/xstrings v1.5.0 // indirect
	github.com/jwilder/dockerize v0.13.0 // indirect
	github.com/jwilder/gojq v0.0.0-20161018055142-c550732d4a52 // indirect
	github.com/mitchellh/copystructure v1.2.0 // indirect
	github.com/mitchellh/reflectwalk v1.0.2 // indirect
	github.com/shopspring/decimal v1.4.0 // indirect
	github.com/spf13/cast v1.9.2 // indirect
	golang.org/x/crypto v0.52.0 // indirect
	golang.org/x/sys v0.45.0 // indirect
	gopkg.in/fsnotify.v1 v1.4.7 // indirect
	gopkg.in/tomb.v1 v1.0.0-20141024135613-dd632973f1e7 // indirect
)
