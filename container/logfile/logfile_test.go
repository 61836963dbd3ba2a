package logfile

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/container"
)

func lines(t *testing.T, path string, opts container.LogOptions) []string {
	t.Helper()
	var got []string
	for e, err := range Read(t.Context(), path, opts) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e.Stream+":"+e.Line)
	}
	return got
}

func write(t *testing.T, w *Writer, stream, text string) {
	t.Helper()
	copyStream(w, stream, strings.NewReader(text), time.Now)
}

func TestReadsBackWhatWasWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "logs", "a.log")
	if got := lines(t, path, container.LogOptions{}); len(got) != 0 {
		t.Fatalf("a log that does not exist has entries: %q", got)
	}
	w, err := NewWriter(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	write(t, w, "stdout", "one\n\nthree")
	write(t, w, "stderr", "four\xff\n")

	want := []string{"stdout:one", "stdout:", "stdout:three", "stderr:four\ufffd"}
	if got := lines(t, path, container.LogOptions{}); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("all = %q, want %q", got, want)
	}
	if got := lines(t, path, container.LogOptions{Tail: 2}); fmt.Sprint(got) != fmt.Sprint(want[2:]) {
		t.Errorf("tail 2 = %q", got)
	}
	if got := lines(t, path, container.LogOptions{Tail: -1}); len(got) != 0 {
		t.Errorf("tail none = %q", got)
	}
	if got := lines(t, path, container.LogOptions{Since: time.Now().Add(time.Hour)}); len(got) != 0 {
		t.Errorf("since the future = %q", got)
	}
}

func TestLongLinesAreCutBetweenRunes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	w, err := NewWriter(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	text := strings.Repeat("x", MaxLine-1) + strings.Repeat("é", MaxLine)
	write(t, w, "stdout", text+"\nend\n")

	var joined strings.Builder
	n := 0
	for e, err := range Read(t.Context(), path, container.LogOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		if len(e.Line) > MaxLine {
			t.Errorf("entry of %d bytes", len(e.Line))
		}
		n++
		joined.WriteString(e.Line)
		if !e.Partial {
			joined.WriteByte('\n')
		}
	}
	if joined.String() != text+"\nend\n" {
		t.Error("the pieces do not give the line again")
	}
	if n != 4 {
		t.Errorf("%d entries, want 4", n)
	}
}

func TestRotationBoundsTheDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	w, err := NewWriter(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	w.max = 4 << 10
	for i := range 1000 {
		write(t, w, "stdout", fmt.Sprintf("line %d\n", i))
	}
	var total int64
	for _, p := range []string{path, rotated(path)} {
		info, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	if total > 2*w.max {
		t.Errorf("the log takes %d bytes, more than twice %d", total, w.max)
	}
	got := lines(t, path, container.LogOptions{Tail: 1})
	if len(got) != 1 || got[0] != "stdout:line 999" {
		t.Errorf("last line = %q", got)
	}
}

func TestFollowSurvivesRotationAndEndsWithTheLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	w, err := NewWriter(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	w.max = 8 << 10
	write(t, w, "stdout", "0\n")

	// The consumer writes each next line itself, so the reader can never be
	// outrun by two rotations, and nothing depends on time.
	const last = 1000
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	next := 0
	for e, err := range Read(ctx, path, container.LogOptions{Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Line != fmt.Sprint(next) {
			t.Fatalf("got line %q, want %d", e.Line, next)
		}
		next++
		switch {
		case next%100 == 0 && next < last: // a burst, so that polling does not make the test long
			var burst bytes.Buffer
			for i := next; i < next+100; i++ {
				fmt.Fprintln(&burst, i)
			}
			write(t, w, "stdout", burst.String())
		case next == 1:
			var burst bytes.Buffer
			for i := 1; i < 100; i++ {
				fmt.Fprintln(&burst, i)
			}
			write(t, w, "stdout", burst.String())
		case next == last:
			if err := Remove(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	if next != last || ctx.Err() != nil {
		t.Errorf("follow ended after %d lines: %v", next, ctx.Err())
	}
}

func TestFollowWaitsForTheLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() {
		w, err := NewWriter(path)
		if err == nil {
			copyStream(w, "stdout", strings.NewReader("late\n"), time.Now)
			_ = w.Close()
		}
	}()
	for e, err := range Read(ctx, path, container.LogOptions{Follow: true, Tail: 5}) {
		if err != nil || e.Line != "late" {
			t.Fatalf("got %q, %v", e.Line, err)
		}
		return
	}
	t.Fatal("the log never came")
}

func TestTornRecordsArePassedOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	w, err := NewWriter(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.Write([]byte("{\"t\":\"20\n" + strings.Repeat("z", 2*maxRecord) + "\n")); err != nil {
		t.Fatal(err)
	}
	write(t, w, "stdout", "whole\n")
	if got := lines(t, path, container.LogOptions{}); len(got) != 1 || got[0] != "stdout:whole" {
		t.Errorf("got %q", got)
	}
}

func FuzzSplitter(f *testing.F) {
	f.Add([]byte("a\nb"), 3)
	f.Add([]byte("\n\n\x00\xff\xc3"), 1)
	f.Add(bytes.Repeat([]byte("é"), MaxLine), 1000)
	f.Fuzz(func(t *testing.T, data []byte, chunk int) {
		if chunk <= 0 {
			return
		}
		var out bytes.Buffer
		s := splitter{stream: "stdout"}
		for rest := data; len(rest) > 0; {
			n := min(chunk, len(rest))
			out.Write(s.feed(nil, rest[:n], time.Unix(0, 0)))
			rest = rest[n:]
		}
		out.Write(s.flush(nil, time.Unix(0, 0)))
		var back bytes.Buffer
		for line := range bytes.Lines(out.Bytes()) {
			e, err := parseRecord(line)
			if err != nil {
				t.Fatal(err)
			}
			if len(e.Line) > 3*MaxLine { // a byte that is not UTF-8 grows to three
				t.Fatalf("entry of %d bytes", len(e.Line))
			}
			back.WriteString(e.Line)
			if !e.Partial {
				back.WriteByte('\n')
			}
		}
		want := strings.ToValidUTF8(string(data), "")
		if want == string(data) && strings.TrimSuffix(back.String(), "\n") != strings.TrimSuffix(want, "\n") {
			t.Fatalf("got %q, want %q", back.String(), want)
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	f.Add([]byte(`{"t":"2026-01-02T03:04:05Z","s":"stdout","l":"x","p":true}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, line []byte) { _, _ = parseRecord(line) })
}

func BenchmarkCopyStream(b *testing.B) {
	w, err := NewWriter(filepath.Join(b.TempDir(), "a.log"))
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	line := []byte(strings.Repeat("x", 99) + "\n")
	b.SetBytes(int64(len(line)))
	r, pw := io.Pipe()
	go func() {
		chunk := bytes.Repeat(line, 300)
		for n := b.N; n > 0; n -= 300 {
			_, _ = pw.Write(chunk[:min(n, 300)*len(line)])
		}
		_ = pw.Close()
	}()
	copyStream(w, "stdout", r, time.Now)
}
