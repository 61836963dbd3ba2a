package control

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
)

// place says where a method is answered.
type place int

const (
	here     place = iota // by the node that was asked
	leader                // by the leading anchor; other nodes carry the call there
	anchored              // by the leading anchor, which must be asked directly
)

// rule is a method's row in the table.
type rule struct {
	roles []api.Role
	at    place
}

var (
	anyone    = []api.Role{api.RoleViewer, api.RoleOperator, api.RoleNode}
	readers   = []api.Role{api.RoleViewer, api.RoleOperator}
	operators = []api.Role{api.RoleOperator}
	nodes     = []api.Role{api.RoleNode}

	storekeepers = []api.Role{api.RoleOperator, api.RoleNode}
)

// rules is the authorisation table. Nothing is allowed that has no row.
var rules = map[string]rule{
	pb.SystemService_GetVersion_FullMethodName: {anyone, here},
	pb.SystemService_GetStatus_FullMethodName:  {anyone, here},

	pb.NodeService_ListNodes_FullMethodName:  {readers, leader},
	pb.NodeService_GetNode_FullMethodName:    {readers, leader},
	pb.NodeService_UpdateNode_FullMethodName: {operators, leader},
	pb.NodeService_RemoveNode_FullMethodName: {operators, leader},

	pb.TokenService_CreateToken_FullMethodName: {operators, leader},
	pb.TokenService_ListTokens_FullMethodName:  {operators, leader},
	pb.TokenService_RevokeToken_FullMethodName: {operators, leader},

	pb.WorkloadService_ApplyWorkload_FullMethodName:   {operators, leader},
	pb.WorkloadService_ListWorkloads_FullMethodName:   {readers, leader},
	pb.WorkloadService_GetWorkload_FullMethodName:     {readers, leader},
	pb.WorkloadService_DeleteWorkload_FullMethodName:  {operators, leader},
	pb.WorkloadService_ScaleWorkload_FullMethodName:   {operators, leader},
	pb.WorkloadService_RestartWorkload_FullMethodName: {operators, leader},
	pb.WorkloadService_ExplainWorkload_FullMethodName: {readers, leader},
	pb.WorkloadService_Logs_FullMethodName:            {readers, here},
	pb.WorkloadService_Exec_FullMethodName:            {operators, here},

	pb.ImageService_ImportImage_FullMethodName: {operators, here},
	pb.ImageService_ListImages_FullMethodName:  {readers, leader},
	pb.ImageService_RemoveImage_FullMethodName: {operators, leader},

	pb.NetworkService_ListServices_FullMethodName: {readers, here},
	pb.NetworkService_ListPeers_FullMethodName:    {readers, here},
	pb.NetworkService_Diagnose_FullMethodName:     {readers, here},

	pb.EventService_ListEvents_FullMethodName:  {readers, leader},
	pb.EventService_WatchEvents_FullMethodName: {readers, leader},

	pb.AnchorService_ListAnchors_FullMethodName:        {readers, leader},
	pb.AnchorService_SetAnchorPolicy_FullMethodName:    {operators, leader},
	pb.AnchorService_TransferLeadership_FullMethodName: {operators, leader},
	pb.AnchorService_Backup_FullMethodName:             {operators, leader},
	pb.AnchorService_SetRecoveryKey_FullMethodName:     {operators, leader},
	pb.AnchorService_ListSnapshots_FullMethodName:      {storekeepers, here},
	pb.AnchorService_FetchSnapshot_FullMethodName:      {storekeepers, here}, // sealed: of no use to who reads it
	pb.AnchorService_KeepSnapshot_FullMethodName:       {nodes, here},        // from anchors alone
	pb.AnchorService_GetProgress_FullMethodName:        {nodes, here},
	pb.AnchorService_FetchAuthority_FullMethodName:     {nodes, anchored}, // those that the state has as anchors
	pb.AnchorService_EnrolFor_FullMethodName:           {nodes, anchored}, // likewise

	pb.AuthorityService_GetAuthority_FullMethodName:    {readers, leader},
	pb.AuthorityService_RotateAuthority_FullMethodName: {operators, leader},

	pb.SyncService_Sync_FullMethodName:             {nodes, anchored},
	pb.SyncService_RegisterImage_FullMethodName:    {nodes, leader},
	pb.SyncService_Confirm_FullMethodName:          {nodes, anchored},
	pb.SyncService_RenewCertificate_FullMethodName: {anyone, leader},

	reflectionV1:      {anyone, here},
	reflectionV1Alpha: {anyone, here},
}

const (
	reflectionV1      = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
	reflectionV1Alpha = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
)

// checkTable returns an error naming the methods of a server that have no row.
func checkTable(s *grpc.Server) error {
	for service, info := range s.GetServiceInfo() {
		for _, m := range info.Methods {
			if name := "/" + service + "/" + m.Name; rules[name].roles == nil {
				return api.Errorf(api.KindInternal, "API method %s has no row in the authorisation table", name)
			}
		}
	}
	return nil
}

// Caller is who makes a call.
type Caller struct {
	Member api.Member
	UID    int        // of the process behind the local socket, -1 otherwise
	Via    api.NodeID // the node that carries the call for them, "" for none
}

// Name tells a person who it was.
func (c *Caller) Name() string {
	switch {
	case c.Member.Operator != "":
		return c.Member.Operator
	case c.UID >= 0:
		return "uid " + strconv.Itoa(c.UID) + " on " + string(c.Member.ID)
	default:
		return string(c.Member.ID)
	}
}

// may reports whether one of the roles is the caller's.
func (c *Caller) may(roles []api.Role) bool {
	return slices.ContainsFunc(roles, c.Member.Has)
}

// behalfKey carries, between nodes only, for whom a call is made.
const behalfKey = "cloudless-on-behalf-of"

// behalf is the value under behalfKey.
type behalf struct {
	ID       api.NodeID `json:"id"`
	Cluster  string     `json:"cluster"`
	Roles    []api.Role `json:"roles"`
	Operator string     `json:"operator,omitempty"`
	UID      int        `json:"uid"`
}

// onBehalfOf returns a context for a call that this node makes for someone.
func onBehalfOf(ctx context.Context, c *Caller) (context.Context, error) {
	value, err := json.Marshal(behalf{c.Member.ID, c.Member.Cluster, c.Member.Roles, c.Member.Operator, c.UID})
	if err != nil {
		return nil, err
	}
	return metadata.AppendToOutgoingContext(ctx, behalfKey, string(value)), nil
}

// callerOf tells who calls: whom the connection proved, or for whom the node
// at its other end speaks. A node may speak for the people at its own socket
// and for operators that reached it; it cannot speak as another node.
func callerOf(ctx context.Context) (*Caller, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, api.Errorf(api.KindDenied, "the caller is not known")
	}
	info, ok := p.AuthInfo.(authInfo)
	if !ok {
		return nil, api.Errorf(api.KindDenied, "the connection proved no identity")
	}
	direct := info.caller
	md, _ := metadata.FromIncomingContext(ctx)
	values := md.Get(behalfKey)
	if len(values) == 0 {
		return &direct, nil
	}
	if !direct.Member.Has(api.RoleNode) {
		return nil, api.Errorf(api.KindDenied, "only nodes carry calls for others")
	}
	var b behalf
	if err := json.Unmarshal([]byte(values[0]), &b); err != nil {
		return nil, api.Errorf(api.KindInvalid, "the call does not say for whom it is made")
	}
	if b.ID == direct.Member.ID && b.UID < 0 {
		direct.Via = b.ID
		return &direct, nil // a node in its own name, by way of itself
	}
	if slices.Contains(b.Roles, api.RoleNode) || slices.Contains(b.Roles, api.RoleAnchor) {
		return nil, api.Errorf(api.KindDenied, "a node cannot speak as another node")
	}
	return &Caller{
		Member: api.Member{ID: b.ID, Cluster: direct.Member.Cluster, Roles: b.Roles, Operator: b.Operator},
		UID:    b.UID,
		Via:    direct.Member.ID,
	}, nil
}

// authorise admits a call by the table.
func authorise(ctx context.Context, method string) (*Caller, rule, error) {
	r, ok := rules[method]
	if !ok {
		return nil, rule{}, api.Errorf(api.KindDenied, "method %s is not in the authorisation table", method)
	}
	c, err := callerOf(ctx)
	if err != nil {
		return nil, rule{}, err
	}
	if !c.may(r.roles) {
		return nil, rule{}, api.Errorf(api.KindDenied, "%s may not call %s: it takes one of the roles %v, the caller has %v", c.Name(), method, r.roles, c.Member.Roles).
			WithHint("log in with a token of that role: cloudless token create --role operator")
	}
	return c, r, nil
}
