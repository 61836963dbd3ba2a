package cli

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the transcripts in testdata")

// at makes the time stand still.
func at(now time.Time) Option {
	return func(a *app) { a.now, a.poll = func() time.Time { return now }, time.Millisecond }
}

// result is what one command line did.
type result struct {
	code           int
	stdout, stderr string
}

func run(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := Run(t.Context(), args, strings.NewReader(stdin), &stdout, &stderr, at(noon))
	return result{code, stdout.String(), stderr.String()}
}

// A transcript shows command lines and what they print: lines of stderr start
// with "! ", an exit code other than 0 is shown as "= CODE". Every transcript
// has a fake node of its own. "go test ./cli -rewrite" writes them anew.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(want))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(want) {
				t.Errorf("%s is not what happens now:\n%s", file, firstDifference(string(want), got))
			}
		})
	}
}

// play carries a transcript's commands out and returns the new transcript.
func play(t *testing.T, transcript string) string {
	_, socket := newFakeNode(t)
	t.Setenv("HOME", t.TempDir())
	t.Setenv(envSocket, socket)
	t.Setenv(envContext, "")
	var out strings.Builder
	for line := range strings.Lines(transcript) {
		command, isCommand := strings.CutPrefix(line, "$ cloudless")
		switch {
		case isCommand:
			words, stdin := split(strings.TrimSpace(command))
			out.WriteString(line)
			out.WriteString(strings.ReplaceAll(show(run(t, stdin, words...)), socket, "$SOCKET"))
		case strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "" && !strings.HasSuffix(out.String(), "\n\n"):
			out.WriteString(line)
		}
	}
	return out.String()
}

// split cuts a command line into words; "< FILE" at the end is its stdin.
func split(command string) (words []string, stdin string) {
	command, file, redirected := strings.Cut(command, " < ")
	if redirected {
		text, _ := os.ReadFile(filepath.Join("testdata", file))
		stdin = string(text)
	}
	return strings.Fields(command), stdin
}

func show(r result) string {
	var b strings.Builder
	b.WriteString(r.stdout)
	for line := range strings.Lines(r.stderr) {
		b.WriteString("! " + line)
	}
	if r.code != 0 {
		fmt.Fprintf(&b, "= %d\n", r.code)
	}
	return b.String()
}

func firstDifference(want, got string) string {
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := 0; ; i++ {
		if i >= len(a) || i >= len(b) || a[i] != b[i] {
			line := func(s []string) string {
				if i < len(s) {
					return s[i]
				}
				return "(the end)"
			}
			return fmt.Sprintf("line %d\nwant %q\ngot  %q", i+1, line(a), line(b))
		}
	}
}
