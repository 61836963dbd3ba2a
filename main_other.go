//go:build !linux

package main

import "github.com/cloudless-project/cloudless/cli"

// helper: nothing starts this binary but a person.
func helper([]string) (code int, done bool) { return 0, false }

// daemon: nodes run on Linux.
func daemon() []cli.Option { return nil }
