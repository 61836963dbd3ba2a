package cli

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api/client"
)

// While no anchor can be reached, people see what the node knew last and are
// told so; what decides something fails.
func TestWhatTheNodeKnewLast(t *testing.T) {
	f, socket := newFakeNode(t)
	f.stale = noon.Add(-2 * time.Minute)
	const warning = "stale since 2026-11-24T11:58:00Z: no anchor can be reached, this is what the node knew last\n"
	for _, args := range []string{"node list", "node list -o json", "node list -o name", "workload show web"} {
		r := run(t, "", append(strings.Fields(args), "--socket", socket)...)
		if r.code != 0 || r.stderr != warning || !strings.Contains(r.stdout, "vps") {
			t.Errorf("%s: %+v", args, r)
		}
	}
	r := run(t, "", "node", "list", "-o", "json", "--socket", socket)
	var rows []struct {
		Since time.Time `json:"stale_since"`
	}
	if err := json.Unmarshal([]byte(r.stdout), &rows); err != nil || len(rows) == 0 || !rows[0].Since.Equal(f.stale) {
		t.Errorf("rows %+v, %v", rows, err)
	}
	c, err := client.Dial(client.Options{Socket: socket})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Nodes(t.Context()); err == nil {
		t.Error("a caller that did not ask for it got what may be old")
	}
}
