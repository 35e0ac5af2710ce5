// Package bench measures nginxsync against its peers in one run: go test -bench . -run Table -v.
package bench
