# make demo    shows the main job on this machine; DEMO=once ends after the story
# make serve   runs the example server on DATA, a directory that stays; TREE=/etc/nginx takes your Nginx configuration, FLAGS go to it
# make test    installs what the tests need, then runs all of them; PKG=./vip/... runs one package with what it needs, TESTFLAGS go to go test
# make quick   tests the packages that need neither root nor servers: minutes on a new machine
# make soak    runs the long tests whole, with more seeds than make test has time for; SOAK=vip takes a part
# make tools   builds the servers that tests need and that no Debian package brings, once; TOOLS=consul builds one
#              TOOLS=nginx unpacks the Nginx of other releases of Debian
# make bench-vip, bench-promote, bench-conf, bench-nginx, bench-envconfig   measure beside the peers, in one run; nothing depends on the figures
# make check-corpus   how often envconfig-check finds something in packages of Debian, npm and Go, which it downloads
# make check   formatting, vet, staticcheck, tidy modules
PKG        = ./...
TESTFLAGS  = -race -timeout 30m
TOOLS      =
DEMO       =
DATA       = sluice-data
TREE       =
FLAGS      =
SOAK       = .
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

NGINX    = nginx=nginx /usr/lib/nginx/modules/ngx_http_lua_module.so=libnginx-mod-http-lua
RACE     = gcc=gcc /usr/include/stdio.h=libc6-dev
INSTALL  = go run ./internal/testbed/tools/install

STATIC = CGO_ENABLED=0 go build -trimpath -ldflags '-s -w'

ifeq ($(PKG),./...)
TESTED = ./builder/... ./envconfig/... ./internal/... ./nginxsync/... ./promote/... ./vip/... ./examples/...
else
TESTED = $(PKG)
endif

.PHONY: demo serve test quick soak tools check check-corpus binaries go bench-vip bench-promote bench-conf bench-nginx bench-envconfig

demo: go
	@scripts/packages 'make demo' $(NGINX)
	@echo 'Building the server and the tools; the first time takes a few minutes, later ones seconds.'
	@$(MAKE) --no-print-directory binaries
	@bin/demo -examples examples -server bin/server $(if $(filter once,$(DEMO)),-once)

serve: go
	@scripts/packages 'make serve' $(NGINX)
	@echo 'Building the server; the first time takes a few minutes, later ones seconds.'
	@$(MAKE) --no-print-directory binaries
	@exec bin/server -data '$(DATA)' $(if $(TREE),-nginx '$(TREE)') $(FLAGS)

binaries:
	@$(STATIC) -o bin/envconfig ./envconfig/cmd/envconfig
	@cd examples && $(STATIC) -o ../bin/server ./server && $(STATIC) -o ../bin/demo ./demo

# a server that a test needs and does not find is a failure here; plain go test skips such a test and says what to do
test: export SLUICE_TESTBED = require
test: go
	@packages="$$($(INSTALL) -packages $(TESTED))" && scripts/packages 'make test' $(RACE) $$packages
	@scripts/test-early $(TESTED) -- $(TESTFLAGS)
	@scripts/test $(PKG) -- $(TESTFLAGS); rc=$$?; $(INSTALL) -nginx $(TESTED); exit $$rc

# what a change of the library needs first: plain go test skips a test whose server is missing, and says which
QUICK = ./vip ./vip/audit ./vip/viphttp ./vip/boltstore ./promote ./builder ./envconfig ./nginxsync ./nginxsync/conf ./internal/names
quick: go
	go test $(QUICK)

soak: export SLUICE_TESTBED = require
soak: export SLUICE_SOAK = 1
soak: go
	@packages="$$($(INSTALL) -packages $(TESTED))" && scripts/packages 'make soak' $(RACE) $$packages
	@$(INSTALL) -for $(TESTED)
	@scripts/soak '$(SOAK)'

tools: go
	@scripts/packages 'make tools' $(if $(filter nginx,$(TOOLS)),patchelf=patchelf) \
		$(if $(filter-out runc,$(TOOLS)),,$(RACE) /usr/include/seccomp.h=libseccomp-dev)
	@$(INSTALL) $(TOOLS)

bench-vip: go
	cd vip/bench && go test -run '^$$' -bench . ./...

bench-promote: go
	@$(INSTALL) consul
	cd promote/bench && go test -run '^$$' -bench . -benchtime 3x .

bench-conf: go
	cd nginxsync/bench && go test -bench 'ParseWrite|Transform' -run Table -v ./...

bench-nginx: go
	@scripts/packages 'make bench-nginx' $(NGINX) haproxy=haproxy
	cd nginxsync/luadriver && go test -run '^$$' -bench 'First|Full|Delta|SetVerified|Idle' .
	@$(INSTALL) consul
	cd nginxsync/bench && go test -run '^$$' -bench 'Requests|Updates|Methods|VIPs|Memory' -benchtime 5x -timeout 30m .
	cd nginxsync/bench && go test -run '^$$' -bench Handshakes -benchtime 1x .
	GOBIN='$(CURDIR)/bin' go install github.com/hashicorp/consul-template@v0.41.1
	cd nginxsync/bench && PATH='$(CURDIR)/bin':"$$PATH" go test -run '^$$' -bench Registration -benchtime 100x .

bench-envconfig: go
	@packages="$$($(INSTALL) -packages ./envconfig/cmd/envconfig)" && \
		scripts/packages 'make bench-envconfig' tini=tini dumb-init=dumb-init catatonit=catatonit s6-svscan=s6 $$packages
	go run ./envconfig/bench

check-corpus: go
	scripts/check-corpus

check: go
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$unformatted" ] || { echo "not formatted:"; echo "$$unformatted"; exit 1; }
	@go run ./internal/prose -clauses 1 -long 1 $$(git ls-files '*.go' | grep -v /testdata/)
	@set -e; export GOWORK=off; for m in $$(scripts/modules); do echo "== check $$m"; (cd $$m && go mod tidy -diff && go vet ./... && go run $(STATICCHECK) ./...); done
	@set -e; export GOWORK=off CGO_ENABLED=0; for os in darwin windows; do echo "== vet for $$os"; GOOS=$$os go vet ./...; done

go:
	@command -v go >/dev/null || { echo 'Go is not installed, or not in PATH: see https://go.dev/doc/install' >&2; exit 1; }
