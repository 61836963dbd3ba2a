//go:build linux

// Command cmd measures the NAT matrix: it prints a table of the pairs and the
// outcome of each scenario, and adds its figures to a file of JSON lines.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/cloudless-project/cloudless/testnet"
	"github.com/cloudless-project/cloudless/testnet/natmatrix"
)

func main() {
	testnet.RunInit()
	natmatrix.RunProgram()
	out := flag.String("out", "build/bench.jsonl", "where the figures go")
	kinds := flag.String("kinds", "", "pairs of these kinds alone, comma-separated; \"none\": no pairs")
	stories := flag.String("scenarios", "", "these scenarios alone, comma-separated; \"none\": no scenarios")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *out, list(*kinds), list(*stories)); err != nil {
		fmt.Fprintln(os.Stderr, "nat failed:", err)
		os.Exit(1)
	}
}

func list(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

func run(ctx context.Context, out string, kinds, stories []string) error {
	failed := 0
	results, err := matrix(ctx, natmatrix.Pairs(kinds...))
	if err != nil {
		return err
	}
	for _, r := range results {
		if r.Err != nil {
			failed++
		}
	}
	if len(results) > 0 {
		fmt.Println()
		if err := natmatrix.WriteTable(os.Stdout, results); err != nil {
			return err
		}
	}
	figures := natmatrix.Figures(results)
	for _, s := range natmatrix.Scenarios(stories...) {
		begun := time.Now()
		f, err := s.Run(ctx)
		figures = append(figures, f...)
		if err != nil {
			failed++
		}
		fmt.Printf("%-16s %-6s %4.1f s  %s\n", s.Name, verdict(err), time.Since(begun).Seconds(), s.Story)
	}
	for _, f := range figures {
		fmt.Printf("%-28s %6.2f %s (next to %.1f)\n", f.Name, f.Value, f.Unit, f.Baseline)
	}
	if err := natmatrix.WriteFigures(out, figures); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d pairs or scenarios did not come out as expected", failed)
	}
	return nil
}

func verdict(err error) string {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return "FAILED"
	}
	return "ok"
}

func matrix(ctx context.Context, pairs []natmatrix.Pair) ([]natmatrix.Result, error) {
	if len(pairs) == 0 {
		return nil, nil
	}
	m, err := natmatrix.NewMatrix(ctx, pairs)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	var results []natmatrix.Result
	for _, p := range pairs {
		r := m.Measure(ctx, p)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		results = append(results, r)
		fmt.Fprintf(os.Stderr, "%-26s %-8s first %.2f s %.2f s, direct %.2f s %.2f s, echo %.2f s, %v %v\n", p, r.Path,
			r.First[0].Seconds(), r.First[1].Seconds(), r.Direct[0].Seconds(), r.Direct[1].Seconds(), r.Echo.Seconds(), r.NAT, verdict(r.Err))
	}
	return results, nil
}
