//go:build linux

// Command demo tells the story of Cloudless on one machine: a VPS and devices
// in homes behind NATs, all of them namespaces with the real binary and real
// containers in them. It exits with 1 when a step fails, and then shows the ends
// of the logs.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/cloudless-project/cloudless/testnet"
)

func main() {
	testnet.RunInit()
	binary := flag.String("binary", "bin/cloudless", "the cloudless binary")
	dir := flag.String("dir", "", "keep disks and logs here (default: removed at the end)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *binary, *dir); err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo failed:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, binary, dir string) (err error) {
	n := newNarrator(os.Stdout)
	fmt.Fprintln(n.out, n.paint(bold, "Cloudless: a VPS, two homes and a café"))
	s := &story{narrator: n, image: "web.tar"}
	defer func() {
		if s.lab == nil {
			return
		}
		if err != nil && ctx.Err() == nil {
			s.showLogs()
		}
		if cerr := s.lab.Close(); err == nil {
			err = cerr
		}
	}()
	if err := s.build(ctx, testnet.Options{Binary: binary, Dir: dir}); err != nil {
		return err
	}
	for _, step := range s.steps() {
		if err := n.tell(ctx, step.title, step.run); err != nil {
			return err
		}
	}
	fmt.Fprintf(n.out, "\nThe whole story took %s.\n", seconds(time.Since(n.start)))
	return nil
}
