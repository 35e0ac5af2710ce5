module github.com/sluice-deploy/sluice/nginxsync/bench

// A module of its own: the peers that it measures stay out of the library's module graph.
go 1.26.5

replace github.com/sluice-deploy/sluice => ../..

require github.com/sluice-deploy/sluice v0.0.0

require golang.org/x/sys v0.47.0 // indirect

require (
	github.com/imega/luaformatter v0.0.0-20211025140405-86b0a68d6bef // indirect
	github.com/timtadh/data-structures v0.5.3 // indirect
	github.com/timtadh/lexmachine v0.2.2 // indirect
	github.com/tufanbarisyildirim/gonginx v0.0.0-20260220081509-8e17ce617db3
)
