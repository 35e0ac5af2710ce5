//go:build !linux

package main

func reloading() string { return "RELOADING=1" }
