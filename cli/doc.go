// Package cli is the command line of Cloudless. docs/cli.md is its contract:
// scripts rely on the flags, the exit codes and the JSON.
//
// There is one file per noun. A verb has a struct of options and a function
// runX(ctx, options, client, printer) that a test can call. The commands talk
// to a node through api/client and never import the daemon: whoever builds the
// binary hands it in with Daemon, and leaves it out where there is none.
package cli
