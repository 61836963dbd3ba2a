package cli

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloudless-project/cloudless/api"
)

// openPTY returns both ends of a new terminal.
func openPTY(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatalf("this test needs pseudo-terminals (mount devpts): %v", err)
	}
	t.Cleanup(func() { person.Close() })
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatalf("this test needs pseudo-terminals (mount devpts): %v", err)
	}
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatalf("this test needs pseudo-terminals (mount devpts): %v", err)
	}
	t.Cleanup(func() { program.Close() })
	return person, program
}

func resize(t *testing.T, terminal *os.File, width, height uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: width, Row: height}); err != nil {
		t.Fatal(err)
	}
}

func readUntil(t *testing.T, from *os.File, text string) {
	t.Helper()
	var seen bytes.Buffer
	buf := make([]byte, 1024)
	for !strings.Contains(seen.String(), text) {
		n, err := from.Read(buf)
		if err != nil {
			t.Fatalf("waiting for %q: %v after %q", text, err, &seen)
		}
		seen.Write(buf[:n])
	}
}

// With -t every key reaches the command, ^C too, and so do new sizes; in the end
// the terminal is as it was.
func TestExecWithTerminal(t *testing.T) {
	_, socket := newFakeNode(t)
	person, program := openPTY(t)
	before, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	resize(t, person, 80, 24)
	code := make(chan int)
	go func() {
		code <- Run(t.Context(), []string{"--socket", socket, "workload", "exec", "-it", "web", "--", "terminal"}, program, program, program)
	}()
	readUntil(t, person, "80x24")
	resize(t, person, 100, 30)
	if err := syscall.Kill(os.Getpid(), syscall.SIGWINCH); err != nil {
		t.Fatal(err)
	}
	readUntil(t, person, "100x30")
	if _, err := person.WriteString("\x03"); err != nil { // ^C
		t.Fatal(err)
	}
	readUntil(t, person, `"\x03"`)
	select {
	case got := <-code:
		if got != 42 {
			t.Errorf("exit code %d", got)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the command did not end")
	}
	after, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
	if err != nil || *after != *before {
		t.Errorf("the terminal is not as it was: %v", err)
	}
}

func TestConfirm(t *testing.T) {
	for answer, ok := range map[string]bool{"y\n": true, "YES\n": true, "n\n": false, "\n": false} {
		person, program := openPTY(t)
		a := &app{stdin: program, stderr: program}
		if _, err := person.WriteString(answer); err != nil {
			t.Fatal(err)
		}
		if err := a.confirm("Remove node %s?", "pi"); (err == nil) != ok || (err != nil && api.KindOf(err) != api.KindInvalid) {
			t.Errorf("answer %q: %v", answer, err)
		}
	}
}
