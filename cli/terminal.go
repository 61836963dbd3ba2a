package cli

import (
	"context"
	"io"
	"os"

	"golang.org/x/term"

	"github.com/cloudless-project/cloudless/api"
)

// terminal is the terminal of this process while a remote command has it.
type terminal struct {
	in, out *os.File
	before  *term.State
}

// openTerminal hands every key to the remote command, ^C included, until
// restore is called.
func openTerminal(stdin io.Reader, stdout io.Writer) (*terminal, error) {
	if !isTerminal(stdin) || !isTerminal(stdout) {
		return nil, api.Invalid("--tty", "stdin and stdout are not a terminal").WithHint("leave -t out")
	}
	t := &terminal{in: stdin.(*os.File), out: stdout.(*os.File)}
	before, err := term.MakeRaw(int(t.in.Fd()))
	if err != nil {
		return nil, api.Errorf(api.KindUnsupported, "cannot take the terminal over: %w", err).WithHint("leave -t out")
	}
	t.before = before
	return t, nil
}

func (t *terminal) restore() { _ = term.Restore(int(t.in.Fd()), t.before) }

// size returns the terminal's size, nil when it has none.
func (t *terminal) size() *api.TerminalSize {
	width, height, err := term.GetSize(int(t.out.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		return nil
	}
	return &api.TerminalSize{Width: uint32(width), Height: uint32(height)}
}

// sizes tells of each new size until ctx ends.
func (t *terminal) sizes(ctx context.Context) <-chan api.TerminalSize {
	sizes := make(chan api.TerminalSize)
	changed, stop := sizeChanges() // here, so that no change is missed
	last := t.size()
	go func() {
		defer close(sizes)
		defer stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
			now := t.size()
			if now == nil || (last != nil && *now == *last) {
				continue
			}
			last = now
			select {
			case sizes <- *now:
			case <-ctx.Done():
				return
			}
		}
	}()
	return sizes
}
