package control

import (
	"context"
	"testing"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
)

func member(id string, roles ...api.Role) api.Member {
	return api.Member{ID: api.NodeID(id), Cluster: "c1", Roles: roles}
}

// calling returns the context of a call that arrives from a member.
func calling(t *testing.T, m api.Member, uid int, onBehalf *Caller) context.Context {
	t.Helper()
	ctx := peer.NewContext(t.Context(), &peer.Peer{AuthInfo: authInfo{caller: Caller{Member: m, UID: uid}}})
	if onBehalf == nil {
		return ctx
	}
	out, err := onBehalfOf(ctx, onBehalf)
	if err != nil {
		t.Fatal(err)
	}
	md, _ := metadata.FromOutgoingContext(out)
	return metadata.NewIncomingContext(ctx, md)
}

func TestTableDecidesByRole(t *testing.T) {
	operator := member("op", api.RoleOperator)
	viewer := member("vi", api.RoleViewer)
	node := member("n1", api.RoleNode)
	for _, c := range []struct {
		who    api.Member
		method string
		want   bool
	}{
		{operator, pb.WorkloadService_ApplyWorkload_FullMethodName, true},
		{viewer, pb.WorkloadService_ApplyWorkload_FullMethodName, false},
		{node, pb.WorkloadService_ApplyWorkload_FullMethodName, false},
		{viewer, pb.WorkloadService_ListWorkloads_FullMethodName, true},
		{viewer, pb.WorkloadService_RestartWorkload_FullMethodName, false},
		{viewer, pb.NetworkService_Diagnose_FullMethodName, true},
		{viewer, pb.WorkloadService_Exec_FullMethodName, false},
		{viewer, pb.TokenService_ListTokens_FullMethodName, false},
		{operator, pb.SyncService_Sync_FullMethodName, false},
		{node, pb.SyncService_Sync_FullMethodName, true},
		{operator, "/cloudless.v1.WorkloadService/Unheard", false},
		// A path without its leading slash must not slip past the table.
		{operator, "cloudless.v1.WorkloadService/ApplyWorkload", false},
	} {
		_, _, err := authorise(calling(t, c.who, -1, nil), c.method)
		if got := err == nil; got != c.want {
			t.Errorf("%v calling %s: allowed is %v, want %v (%v)", c.who.Roles, c.method, got, c.want, err)
		}
		if err != nil && api.KindOf(err) != api.KindDenied {
			t.Errorf("%s: kind %s, want denied", c.method, api.KindOf(err))
		}
	}
}

func TestSpeakingForOthers(t *testing.T) {
	node := member("n1", api.RoleNode)
	operator := &Caller{Member: member("op", api.RoleOperator), UID: -1}

	c, err := callerOf(calling(t, node, -1, operator))
	if err != nil || !c.Member.Has(api.RoleOperator) || c.Via != "n1" {
		t.Errorf("a node carrying an operator's call: %+v, %v", c, err)
	}
	local := &Caller{Member: member("n1", api.RoleOperator), UID: 1000}
	if c, err = callerOf(calling(t, node, -1, local)); err != nil || c.UID != 1000 || c.Member.Has(api.RoleNode) {
		t.Errorf("a node carrying a local user's call: %+v, %v", c, err)
	}
	self := &Caller{Member: member("n1", api.RoleNode, api.RoleAnchor), UID: -1}
	if c, err = callerOf(calling(t, node, -1, self)); err != nil || c.Member.Has(api.RoleAnchor) {
		t.Errorf("a node claims roles that its certificate does not have: %+v, %v", c, err)
	}
	for name, claim := range map[string]*Caller{
		"another node":   {Member: member("n2", api.RoleNode), UID: -1},
		"an anchor":      {Member: member("n2", api.RoleAnchor), UID: -1},
		"a mix of roles": {Member: member("op", api.RoleOperator, api.RoleNode), UID: -1},
	} {
		if c, err := callerOf(calling(t, node, -1, claim)); api.KindOf(err) != api.KindDenied {
			t.Errorf("a node speaking as %s got %+v, %v; want denied", name, c, err)
		}
	}
	if _, err := callerOf(calling(t, member("vi", api.RoleViewer), -1, operator)); api.KindOf(err) != api.KindDenied {
		t.Errorf("a viewer speaking for an operator got %v, want denied", err)
	}
}

func TestUnknownConnectionsAreDenied(t *testing.T) {
	if _, err := callerOf(t.Context()); api.KindOf(err) != api.KindDenied {
		t.Errorf("no peer: %v", err)
	}
	if _, err := callerOf(peer.NewContext(t.Context(), &peer.Peer{})); api.KindOf(err) != api.KindDenied {
		t.Errorf("no identity: %v", err)
	}
}

func TestPanicOfAHandlerIsAnError(t *testing.T) {
	err := contain(func() error { panic("nil map") })
	if api.KindOf(err) != api.KindInternal {
		t.Errorf("got %v, want an internal error", err)
	}
}
