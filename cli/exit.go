package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/api/manifest"
)

// The exit codes.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2 // usage or validation
	exitNotFound    = 3
	exitDenied      = 4
	exitUnreachable = 5 // or no leader
	exitUnplaced    = 6 // or unhealthy
	exitTimeout     = 7
)

// exitCodes maps the kinds of error that have an exit code of their own.
var exitCodes = map[api.Kind]int{
	api.KindInvalid:     exitUsage,
	api.KindNotFound:    exitNotFound,
	api.KindDenied:      exitDenied,
	api.KindUnavailable: exitUnreachable,
	api.KindUnplaced:    exitUnplaced,
	api.KindTimeout:     exitTimeout,
}

// saidExit carries an exit code through cobra when there is nothing to report: a
// remote command, or a doctor, has said what it had to say.
type saidExit int

func (e saidExit) Error() string { return fmt.Sprintf("the command exited with code %d", int(e)) }

// badUsage returns the error of a command line that cannot be understood.
func badUsage(command, format string, args ...any) error {
	return &usageError{api.Errorf(api.KindInvalid, format, args...).WithHint("see %q", command+" --help")}
}

// usageError marks what is said in one line: the way out is part of it.
type usageError struct{ err *api.Error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// fail reports an error and returns its exit code.
func (a *app) fail(ctx context.Context, err error, args []string) int {
	var said saidExit
	if errors.As(err, &said) {
		return int(said)
	}
	problems := problemsOf(ctx, err)
	if wantsJSON(args) {
		a.failJSON(problems)
	} else {
		var usage *usageError
		a.failText(problems, errors.As(err, &usage))
	}
	return exitCode(problems)
}

// exitCode returns the code of the first problem. A manifest that asks for what
// this version does not support is as wrong as one that nobody understands.
func exitCode(problems []*api.Error) int {
	if located(problems[0]) != nil {
		return exitUsage
	}
	if code, ok := exitCodes[problems[0].Kind]; ok {
		return code
	}
	return exitError
}

// located returns where in a manifest a problem is, nil when it is elsewhere.
func located(e *api.Error) *manifest.Located {
	where, _ := errors.AsType[*manifest.Located](e)
	return where
}

// problemsOf returns what err is made of, one at least.
func problemsOf(ctx context.Context, err error) []*api.Error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return []*api.Error{api.Errorf(api.KindInternal, "interrupted")}
	}
	if problems := api.Problems(err); len(problems) > 0 {
		return problems
	}
	kind := api.KindInternal
	if errors.Is(err, context.DeadlineExceeded) {
		kind = api.KindTimeout
	}
	return []*api.Error{api.Errorf(kind, "%w", err)}
}

func (a *app) failText(problems []*api.Error, usage bool) {
	for _, e := range problems {
		text := "cloudless: " + e.Error()
		switch {
		case e.Hint == "":
		case usage || strings.HasPrefix(e.Field, "--"):
			text += "; " + e.Hint
		default:
			text += "\nhint: " + e.Hint
		}
		if snippet := manifest.Snippet(e); snippet != "" {
			text += "\n" + strings.TrimRight(snippet, "\n")
		}
		fmt.Fprintln(a.stderr, text)
	}
}

// problemJSON is an error as scripts see it.
type problemJSON struct {
	Code    api.Kind `json:"code"`
	Field   string   `json:"field,omitempty"`
	Message string   `json:"message"`
	Hint    string   `json:"hint"`
}

func newProblemJSON(e *api.Error) problemJSON {
	p := problemJSON{e.Kind, e.Field, e.Error(), e.Hint}
	if where := located(e); where != nil {
		p.Field = where.Field
	}
	return p
}

// failJSON writes one document. The first problem stands for all; when there
// are several, they follow, the first one included.
func (a *app) failJSON(problems []*api.Error) {
	type body struct {
		problemJSON
		Problems []problemJSON `json:"problems,omitempty"`
	}
	b := body{problemJSON: newProblemJSON(problems[0])}
	if len(problems) > 1 {
		b.Problems = array(problems, newProblemJSON)
	}
	text, err := encodeJSON(map[string]body{"error": b}, "")
	if err == nil {
		_, _ = a.stderr.Write(text)
	}
}

// wantsJSON looks for -o json itself: an error may come up before the flags
// were understood.
func wantsJSON(args []string) bool {
	for i, arg := range args {
		if arg == "--" {
			return false
		}
		if (arg == "-o" || arg == "--output") && i+1 < len(args) && args[i+1] == formatJSON {
			return true
		}
		value, found := strings.CutPrefix(arg, "--output=")
		if !found {
			value, found = strings.CutPrefix(arg, "-o")
			value = strings.TrimPrefix(value, "=")
		}
		if found && value == formatJSON {
			return true
		}
	}
	return false
}
