package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/cloudless-project/cloudless/api"
)

// maxTokenFile bounds a file that should hold a token, in bytes.
const maxTokenFile = 64 << 10

// readToken returns the text of a token: the argument itself, the content of
// @FILE, or stdin for -. Tokens that are typed end up in the shell's history.
func (a *app) readToken(arg string) (string, error) {
	var text []byte
	var err error
	switch path, isFile := strings.CutPrefix(arg, "@"); {
	case arg == "-":
		text, err = io.ReadAll(io.LimitReader(a.stdin, maxTokenFile))
	case isFile:
		var f io.ReadCloser
		if f, err = a.open(path); err != nil {
			return "", err
		}
		defer f.Close()
		text, err = io.ReadAll(io.LimitReader(f, maxTokenFile))
	default:
		return arg, nil
	}
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	if strings.TrimSpace(string(text)) == "" {
		return "", api.Errorf(api.KindInvalid, "the token is empty").WithHint("make one with \"cloudless token create\"")
	}
	return strings.TrimSpace(string(text)), nil
}

// open opens a file that the user named; - is stdin.
func (a *app) open(path string) (io.ReadCloser, error) {
	if path == "-" {
		return io.NopCloser(a.stdin), nil
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, api.Errorf(api.KindNotFound, "there is no file %s", path)
	}
	if err != nil {
		return nil, api.Errorf(api.KindInvalid, "%w", err)
	}
	if info, err := f.Stat(); err == nil && info.IsDir() {
		f.Close()
		return nil, api.Errorf(api.KindInvalid, "%s is a directory", path).WithHint("name a file")
	}
	return f, nil
}

// confirm asks a person. Without a terminal nobody is there to ask, and what
// the command line says is done.
func (a *app) confirm(format string, args ...any) error {
	if a.flags.yes || !isTerminal(a.stdin) || !isTerminal(a.stderr) {
		return nil
	}
	fmt.Fprintf(a.stderr, format+" [y/N] ", args...)
	answer, _ := bufio.NewReader(a.stdin).ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return api.Errorf(api.KindInvalid, "nothing was changed").WithHint("answer y, or give --yes")
}
