// Command cmd simulates clusters of thousands of nodes in virtual time, prints
// what it measured, and appends one JSON line per figure to a file.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/cloudless-project/cloudless/testnet/sim"
)

func main() {
	out := flag.String("out", "build/bench.jsonl", "append the figures to this file")
	seed := flag.Uint64("seed", 1, "the same seed gives the same story")
	flag.Parse()
	if err := run(*out, *seed); err != nil {
		fmt.Fprintf(os.Stderr, "sim failed (seed %d): %v\n", *seed, err)
		os.Exit(1)
	}
}

func run(out string, seed uint64) error {
	begun := time.Now()
	figures := sim.Run(os.Stdout, sim.Full(), seed)
	figures = append(figures, sim.AnchorCPU(os.Stdout, 5000)...)
	fmt.Printf("\nSimulated in %s.\n", time.Since(begun).Round(time.Second))
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(out, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := sim.WriteFigures(f, figures); err != nil {
		return err
	}
	return f.Close()
}
