package control

import (
	"encoding/json"
	"testing"

	"google.golang.org/grpc/metadata"

	"github.com/cloudless-project/cloudless/api"
)

// A node says for whom it carries a call. It can say anything, and becomes no
// other node by it.
func FuzzBehalf(f *testing.F) {
	for _, b := range []behalf{
		{ID: "ada", Roles: []api.Role{api.RoleOperator}, Operator: "ada", UID: -1},
		{ID: "node", UID: -1},
		{ID: "node", UID: 1000, Roles: []api.Role{api.RoleOperator}},
		{ID: "other", Roles: []api.Role{api.RoleNode, api.RoleAnchor}},
	} {
		said, err := json.Marshal(b)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(said))
	}
	f.Add("[[[[")
	f.Fuzz(func(t *testing.T, said string) {
		self := member("node", api.RoleNode)
		ctx := metadata.NewIncomingContext(calling(t, self, -1, nil), metadata.Pairs(behalfKey, said))
		c, err := callerOf(ctx)
		switch {
		case err != nil:
			if kind := api.KindOf(err); kind != api.KindDenied && kind != api.KindInvalid {
				t.Errorf("kind of %v", err)
			}
		case c.Via != self.ID || c.Member.Cluster != self.Cluster:
			t.Errorf("a carried call counts as one of %+v", c)
		case c.Member.ID != self.ID && (c.Member.Has(api.RoleNode) || c.Member.Has(api.RoleAnchor)):
			t.Errorf("a node speaks as another one: %+v", c)
		}
		person := metadata.NewIncomingContext(calling(t, member("ada", api.RoleOperator), -1, nil), metadata.Pairs(behalfKey, said))
		if c, err := callerOf(person); err == nil {
			t.Errorf("a person speaks for %+v", c)
		}
	})
}
