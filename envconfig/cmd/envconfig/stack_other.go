//go:build !amd64

package main

func growStack() {}
