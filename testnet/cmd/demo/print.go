//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// narrator prints a story: numbered steps with their time, and what happened
// in each.
type narrator struct {
	out   io.Writer
	start time.Time
	step  int
	color bool
}

func newNarrator(f *os.File) *narrator {
	return &narrator{out: f, start: time.Now(), color: term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == ""}
}

const (
	bold  = "1"
	dim   = "2"
	green = "32"
	red   = "31"
)

func (n *narrator) paint(code, s string) string {
	if !n.color {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// tell runs one step of the story.
func (n *narrator) tell(ctx context.Context, title string, step func(context.Context) error) error {
	n.step++
	fmt.Fprintf(n.out, "\n%s %s\n", n.paint(dim, fmt.Sprintf("%2d", n.step)), n.paint(bold, title))
	start := time.Now()
	if err := step(ctx); err != nil {
		fmt.Fprintf(n.out, "   %s %s\n", n.paint(red, "✗ after "+seconds(time.Since(start))), err)
		return fmt.Errorf("step %d, %q: %w", n.step, title, err)
	}
	fmt.Fprintf(n.out, "   %s\n", n.paint(green, "✓ "+seconds(time.Since(start))))
	return nil
}

// say prints a line of detail.
func (n *narrator) say(format string, args ...any) {
	for line := range strings.SplitSeq(strings.TrimRight(fmt.Sprintf(format, args...), "\n"), "\n") {
		fmt.Fprintf(n.out, "   %s\n", line)
	}
}

// show prints the command that was run, as a person would type it, and what it
// printed.
func (n *narrator) show(device, command, output string) {
	n.say("%s", n.paint(dim, device+" $ "+command))
	for line := range strings.SplitSeq(strings.TrimRight(output, "\n"), "\n") {
		n.say("  %s", line)
	}
}

func seconds(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}
