// Command lint is the part of the linter that is neither in go vet nor in
// staticcheck: errors that nobody looks at, and errors that are compared or
// asserted in ways that break once they are wrapped. It speaks go vet's
// protocol, so the build cache remembers its verdicts:
//
//	go vet -vettool=build/tools/lint ./...
package main

import (
	"go/token"
	"strings"

	"github.com/kisielk/errcheck/errcheck"
	"github.com/polyfloyd/go-errorlint/errorlint"
	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/unitchecker"
)

func main() {
	errcheck.DefaultExcludedSymbols = append(errcheck.DefaultExcludedSymbols, ignored...)
	unitchecker.Main(
		only(errcheck.Analyzer, func(file, line string) bool {
			return !strings.HasSuffix(file, "_test.go") && !closes(line)
		}),
		only(errorlint.NewAnalyzer(), func(file, _ string) bool {
			return !strings.HasSuffix(file, ".pb.go")
		}),
	)
}

// ignored are the calls whose error carries no news: what is printed to a
// terminal that went away, and what cannot fail.
var ignored = []string{
	"fmt.Fprint",
	"fmt.Fprintf",
	"fmt.Fprintln",
	"(*text/tabwriter.Writer).Flush",
}

// closes recognises the closing of what was read, or of what failed already.
// Where the error of Close matters (a file that was written) it is returned, and
// then there is nothing to complain about.
func closes(line string) bool {
	for _, call := range []string{".Close()", ".CloseWrite()", ".CloseRead()", ".Reset()", ".SetDeadline(", ".SetReadDeadline(", ".SetWriteDeadline("} {
		if strings.Contains(line, call) {
			return true
		}
	}
	return false
}

// only narrows an analyzer to the findings that keep wants, given the name of
// the file and the line of source.
func only(a *analysis.Analyzer, keep func(file, line string) bool) *analysis.Analyzer {
	run := a.Run
	narrowed := *a
	narrowed.Run = func(pass *analysis.Pass) (any, error) {
		p := *pass
		p.Report = func(d analysis.Diagnostic) {
			at := pass.Fset.Position(d.Pos)
			if keep(at.Filename, sourceLine(pass, at)) {
				pass.Report(d)
			}
		}
		return run(&p)
	}
	return &narrowed
}

func sourceLine(pass *analysis.Pass, at token.Position) string {
	src, err := pass.ReadFile(at.Filename)
	if err != nil {
		return ""
	}
	lines := strings.SplitN(string(src), "\n", at.Line+1)
	if at.Line > len(lines) {
		return ""
	}
	return lines[at.Line-1]
}
