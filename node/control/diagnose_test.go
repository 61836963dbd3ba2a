package control

import (
	"context"
	"net"
	"testing"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
)

// examined is a node of two whose doctor finds one thing.
func examined(t *testing.T, self, found string, dial DialFunc) *Server {
	t.Helper()
	s, err := New(Config{
		Self: member(self, api.RoleNode), Dial: dial, Log: zap.NewNop(),
		View: func() api.ClusterView {
			return api.ClusterView{Nodes: []api.Node{
				{ID: "n1", Inventory: api.Inventory{Name: "vps"}}, {ID: "n2", Inventory: api.Inventory{Name: "pi"}},
			}}
		},
		Diagnose: func(context.Context) []api.Check { return []api.Check{{Name: found, Status: api.CheckOK}} },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.pool.close)
	return s
}

func TestAnotherNodeIsExamined(t *testing.T) {
	pi := examined(t, "n2", "on pi", nil)
	go func() { _ = pi.Run(t.Context()) }()
	vps := examined(t, "n1", "on vps", func(ctx context.Context, to api.NodeID) (net.Conn, error) {
		conn, err := pi.pipe.dial(ctx)
		return pipeConn{conn, member("n1", api.RoleNode)}, err
	})
	operator := &Caller{Member: member("op", api.RoleOperator), UID: -1}
	ctx := context.WithValue(t.Context(), callerKey{}, operator)
	for node, want := range map[string]string{"": "on vps", "vps": "on vps", "n1": "on vps", "pi": "on pi", "n2": "on pi"} {
		reply, err := (&networkServer{Server: vps}).Diagnose(ctx, &pb.DiagnoseRequest{Node: node})
		if err != nil || len(reply.GetChecks()) != 1 || reply.GetChecks()[0].GetName() != want {
			t.Errorf("asked for %q: %v, %v, want %q", node, reply.GetChecks(), err, want)
		}
	}
	if _, err := vps.meant(ctx, "nas"); api.KindOf(err) != api.KindNotFound {
		t.Errorf("an unknown node: %v", err)
	}
	carried := context.WithValue(t.Context(), callerKey{}, &Caller{Member: operator.Member, UID: -1, Via: "n2"})
	if _, err := vps.meant(carried, "pi"); api.KindOf(err) != api.KindConflict {
		t.Errorf("a call that was carried here goes on to another node: %v", err)
	}
}
