package control

import (
	"context"
	"time"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
	"github.com/cloudless-project/cloudless/raftmeta/state"
)

type tokenServer struct {
	pb.UnimplementedTokenServiceServer
	*Server
}

// The bounds of a token.
const (
	defaultTokenTTL = 15 * time.Minute
	maxTokenTTL     = 30 * 24 * time.Hour
	maxTokenUses    = 1000
)

func (s *tokenServer) CreateToken(ctx context.Context, req *pb.CreateTokenRequest) (*pb.CreateTokenResponse, error) {
	r := wire.TokenRequestFromPB(req)
	if r.Role == "" {
		r.Role = api.RoleNode
	}
	if r.TTL == 0 {
		r.TTL = defaultTokenTTL
	}
	if r.Uses == 0 {
		r.Uses = 1
	}
	switch {
	case r.Role != api.RoleNode && r.Role != api.RoleOperator && r.Role != api.RoleViewer:
		return nil, api.Invalid("role", "%q is not a role", r.Role).WithHint("use node, operator or viewer")
	case r.TTL < time.Second || r.TTL > maxTokenTTL:
		return nil, api.Invalid("ttl", "%s is not between 1s and %s", r.TTL, maxTokenTTL)
	case r.Uses < 1 || r.Uses > maxTokenUses:
		return nil, api.Invalid("uses", "%d is not between 1 and %d", r.Uses, maxTokenUses)
	}
	token, err := s.cfg.Invite(r.Role)
	if err != nil {
		return nil, err
	}
	now := s.cfg.Now()
	record, err := propose[api.Token](ctx, s.Server, state.PutToken{Now: now, Token: api.Token{
		ID:         token.ID,
		Role:       r.Role,
		SecretHash: token.Hash(),
		CreatedAt:  now,
		CreatedBy:  caller(ctx).Name(),
		ExpiresAt:  now.Add(r.TTL),
		Uses:       r.Uses,
	}})
	if err != nil {
		return nil, err
	}
	return &pb.CreateTokenResponse{Token: token.String(), Record: publicToken(record)}, nil
}

func (s *tokenServer) ListTokens(ctx context.Context, _ *pb.ListTokensRequest) (*pb.ListTokensResponse, error) {
	view, err := s.linearizable(ctx)
	if err != nil {
		return nil, err
	}
	reply := &pb.ListTokensResponse{}
	for _, t := range view.Tokens() {
		reply.Tokens = append(reply.Tokens, publicToken(t))
	}
	return reply, nil
}

func (s *tokenServer) RevokeToken(ctx context.Context, req *pb.RevokeTokenRequest) (*pb.RevokeTokenResponse, error) {
	if _, err := propose[any](ctx, s.Server, state.RevokeToken{ID: req.GetId(), Now: s.cfg.Now()}); err != nil {
		return nil, err
	}
	return &pb.RevokeTokenResponse{}, nil
}

// publicToken is a record as people may see it.
func publicToken(t api.Token) *pb.Token {
	t.SecretHash = nil
	return wire.TokenToPB(t)
}
