// Command cloudless is the whole of Cloudless in one binary: the daemon that
// makes a device a node, and the command line that talks to any of them.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/cloudless-project/cloudless/cli"
)

func main() {
	if code, done := helper(os.Args[1:]); done {
		os.Exit(code)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends at once what does not want to end
	code := cli.Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, daemon()...)
	stop()
	os.Exit(code)
}
