package anchors

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// A node is "name@zone", in the order of joining, with ":words" for what keeps
// it from being chosen.
func TestKeepers(t *testing.T) {
	for _, c := range []struct{ name, nodes, want string }{
		{"nobody", "", ""},
		{"anchors have the state itself", "a@cloud:anchor b@home", "b"},
		{"the oldest first", "a@home b@home c@home d@home", "a b c"},
		{"every zone before a second in one", "a@home b@home c@flat d@office", "a c d"},
		{"then the second ones", "a@home b@home c@flat", "a c b"},
		{"only those that are well", "a@home:down b@home:suspect c@home", "c"},
		{"drained nodes still have a disk", "a@home:draining b@home:cordoned", "a b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var nodes []api.Node
			for i, field := range strings.Fields(c.nodes) {
				head, word, _ := strings.Cut(field, ":")
				name, zone, _ := strings.Cut(head, "@")
				n := api.Node{ID: api.NodeID(name), State: api.NodeReady, JoinedAt: noon.Add(time.Duration(i) * time.Hour)}
				n.Inventory.Zone = zone
				switch word {
				case "":
				case "anchor":
					n.Anchor = true
				default:
					n.State = api.NodeState(word)
				}
				nodes = append(nodes, n)
			}
			if got := strings.Trim(fmt.Sprint(Keepers(nodes, 3)), "[]"); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
