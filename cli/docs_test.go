package cli

import (
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cloudless-project/cloudless/api"
)

// commandsInDocs returns the lines of docs/cli.md that show commands, each with
// those that continue it.
func commandsInDocs(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(text), "## Commands\n\n```\n")
	block, _, found := strings.Cut(block, "```")
	if !found {
		t.Fatal("docs/cli.md has no block of commands")
	}
	var commands []string
	for line := range strings.Lines(block) {
		switch {
		case strings.HasPrefix(line, "cloudless "):
			commands = append(commands, strings.TrimSpace(line))
		case strings.TrimSpace(line) != "":
			commands[len(commands)-1] += " " + strings.TrimSpace(line)
		}
	}
	return commands
}

// pathPattern finds the words that name a command.
var pathPattern = regexp.MustCompile(`^cloudless((?: [a-z][a-z-]*)+?)(?: [A-Z\[-]| bash|\s{2,}|$)`)

var flagPattern = regexp.MustCompile(`(?:^|[\s\[])(--?[a-z][a-z-]*)`)

func testRoot() *cobra.Command {
	a := &app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard}
	root := a.rootCommand()
	root.InitDefaultCompletionCmd()
	return root
}

// Every command and flag that is documented exists, and the other way round.
func TestDocumentedCommandsAndFlags(t *testing.T) {
	root := testRoot()
	documented := map[*cobra.Command]string{}
	for _, line := range commandsInDocs(t) {
		match := pathPattern.FindStringSubmatch(line)
		if match == nil {
			t.Errorf("cannot read %q", line)
			continue
		}
		cmd, rest, err := root.Find(strings.Fields(match[1]))
		if err != nil || len(rest) > 0 || cmd == root {
			t.Errorf("docs/cli.md has %q, the binary has not: %v", match[0], err)
			continue
		}
		documented[cmd] = line
		for _, flag := range flagPattern.FindAllStringSubmatch(line, -1) {
			if !hasFlag(cmd, flag[1]) {
				t.Errorf("docs/cli.md has %s of %q, the binary has not", flag[1], cmd.CommandPath())
			}
		}
	}
	for _, cmd := range leaves(root) {
		line, ok := documented[cmd]
		if !ok {
			t.Errorf("docs/cli.md does not have %q", cmd.CommandPath())
		}
		cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" && !strings.Contains(line, "--"+f.Name) && (f.Shorthand == "" || !strings.Contains(line, "-"+f.Shorthand)) {
				t.Errorf("docs/cli.md does not have --%s of %q", f.Name, cmd.CommandPath())
			}
		})
	}
}

func hasFlag(cmd *cobra.Command, text string) bool {
	if name, long := strings.CutPrefix(text, "--"); long {
		return cmd.Flag(name) != nil
	}
	return cmd.Flags().ShorthandLookup(text[1:]) != nil
}

// leaves returns the commands that do something.
func leaves(cmd *cobra.Command) []*cobra.Command {
	if cmd.Name() == "completion" {
		return nil // its subcommands are cobra's
	}
	subs := cmd.Commands()
	if len(subs) == 0 {
		return []*cobra.Command{cmd}
	}
	var all []*cobra.Command
	for _, sub := range subs {
		all = append(all, leaves(sub)...)
	}
	return all
}

func TestGlobalFlags(t *testing.T) {
	root := testRoot()
	text, err := os.ReadFile("../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	root.PersistentFlags().VisitAll(func(f *pflag.Flag) {
		if !strings.Contains(string(text), "--"+f.Name) && (f.Shorthand == "" || !strings.Contains(string(text), "`-"+f.Shorthand)) {
			t.Errorf("docs/cli.md does not have --%s", f.Name)
		}
	})
	for _, name := range []string{"socket", "context", "peer", "output", "no-headers", "timeout", "no-color", "yes"} {
		if root.PersistentFlags().Lookup(name) == nil {
			t.Errorf("the global flag --%s is missing", name)
		}
	}
}

// Help is written for people: every command and every flag says what it is for.
func TestEverythingHasHelp(t *testing.T) {
	for _, cmd := range leaves(testRoot()) {
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%q: the short help is %q", cmd.CommandPath(), cmd.Short)
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%q: --%s has no help", cmd.CommandPath(), f.Name)
			}
		})
	}
}

var fieldPattern = regexp.MustCompile("`([a-z_|-]+)`")

// Every field of the JSON of a noun is documented.
func TestDocumentedFields(t *testing.T) {
	text, err := os.ReadFile("../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, m := range fieldPattern.FindAllStringSubmatch(string(text), -1) {
		words = append(words, m[1])
	}
	for _, v := range []any{
		nodeJSON{}, anchorJSON{}, anchorChange{}, backupJSON{}, Restored{}, tokenJSON{}, contextJSON{}, workloadDetailJSON{}, replicaJSON{}, applied{}, explanationJSON{}, verdictJSON{},
		imageJSON{}, serviceJSON{}, peerJSON{}, eventJSON{}, resourcesJSON{}, replicasJSON{}, powerJSON{}, api.Rollout{}, api.GPU{}, api.Check{},
	} {
		for _, name := range jsonNames(v) {
			if !slices.Contains(words, name) {
				t.Errorf("docs/cli.md does not have the field %s of %T", name, v)
			}
		}
	}
}
