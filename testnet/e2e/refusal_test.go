//go:build linux

package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cloudless-project/cloudless/testnet"
)

// The exit codes that scripts rely on.
const (
	exitUsage       = 2
	exitNotFound    = 3
	exitDenied      = 4
	exitUnreachable = 5
)

func exitCode(t *testing.T, err error) int {
	t.Helper()
	if err == nil {
		return 0
	}
	var exit *testnet.ExitError
	if !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return exit.Code
}

// TestRefusals: whatever is wrong is answered by its exit code and one line
// that says what, followed at most by a hint and the place (CLD-REQ-072, 081).
func TestRefusals(t *testing.T) {
	ctx := t.Context()
	lab := newCluster(t)
	vps, laptop := lab.Device("vps"), lab.Device("laptop")

	var token testnet.Token
	must(t, vps.CloudlessJSON(ctx, &token, "token", "create"))
	var revoked testnet.Token
	must(t, vps.CloudlessJSON(ctx, &revoked, "token", "create"))
	cloudless(t, vps, "token", "revoke", revoked.ID)

	file := func(name, content string) string {
		path := filepath.Join(lab.Dir, name)
		must(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	join := func(token string) []string {
		return []string{"node", "start", "--data-dir", testnet.DataDir, "--no-workloads", "--join", token}
	}
	tests := []struct {
		name   string
		device *testnet.Device
		args   []string
		code   int
		says   string // part of the complaint
	}{
		{"token of nonsense", laptop, join("nonsense"), exitUsage, "token"},
		{"truncated token", laptop, join(token.Token[:len(token.Token)-9]), exitUsage, "token"},
		{"revoked token", laptop, join(revoked.Token), exitDenied, ""},
		{"archive of nonsense", vps, []string{"image", "import", file("bad.tar", "this is no archive")}, exitUsage, ""},
		{"archive that is not there", vps, []string{"image", "import", "/nowhere.tar"}, exitNotFound, "/nowhere.tar"},
		{"unknown field", vps, []string{"apply", "-f", file("field.yaml", "apiVersion: cloudless/v1\nkind: Workload\nmetadata: {name: web}\nspec:\n  image: a\n  replica: 3\n")}, exitUsage, "field.yaml:6:"},
		{"broken YAML", vps, []string{"apply", "-f", file("broken.yaml", "kind: [")}, exitUsage, "broken.yaml:"},
		{"unknown workload", vps, []string{"workload", "show", "nothing"}, exitNotFound, "nothing"},
		{"unknown verb", vps, []string{"workload", "frobnicate"}, exitUsage, "frobnicate"},
		{"no daemon here", laptop, []string{"node", "list"}, exitUnreachable, ""},
		{"no data directory", laptop, []string{"node", "start"}, exitUsage, "--data-dir"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tt.device.Cloudless(t.Context(), tt.args...)
			if got := exitCode(t, err); got != tt.code {
				t.Errorf("exit code %d, want %d: %v", got, tt.code, err)
			}
			var exit *testnet.ExitError
			if !errors.As(err, &exit) {
				return
			}
			checkComplaint(t, exit.Stderr, tt.says)
		})
	}
}

// checkComplaint wants one line of complaint, then nothing but hints and quoted
// source. The log of a daemon that gives up may come before.
func checkComplaint(t *testing.T, stderr, says string) {
	t.Helper()
	var complaint []string
	for line := range strings.Lines(stderr) {
		if !strings.HasPrefix(line, "{") {
			complaint = append(complaint, line)
		}
	}
	if len(complaint) == 0 || !strings.HasPrefix(complaint[0], "cloudless: ") || !strings.Contains(complaint[0], says) {
		t.Errorf("the complaint does not begin with a line that says %q:\n%s", says, stderr)
		return
	}
	for _, line := range complaint[1:] {
		if !strings.HasPrefix(line, "hint: ") && !strings.HasPrefix(line, " ") {
			t.Errorf("the complaint goes on:\n%s", stderr)
		}
	}
}
