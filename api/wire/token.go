package wire

import (
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
)

// TokenToPB converts the record of a join token.
func TokenToPB(t api.Token) *pb.Token {
	return &pb.Token{
		Id:         t.ID,
		Role:       string(t.Role),
		SecretHash: t.SecretHash,
		CreatedAt:  timeToPB(t.CreatedAt),
		CreatedBy:  t.CreatedBy,
		ExpiresAt:  timeToPB(t.ExpiresAt),
		Uses:       intToPB(t.Uses),
		Version:    t.Version,
	}
}

// TokenFromPB converts the record of a join token.
func TokenFromPB(p *pb.Token) api.Token {
	return api.Token{
		ID:         p.GetId(),
		Role:       api.Role(p.GetRole()),
		SecretHash: p.GetSecretHash(),
		CreatedAt:  timeFromPB(p.GetCreatedAt()),
		CreatedBy:  p.GetCreatedBy(),
		ExpiresAt:  timeFromPB(p.GetExpiresAt()),
		Uses:       intFromPB(p.GetUses()),
		Version:    p.GetVersion(),
	}
}

// TokenRequestToPB converts the wish for a token.
func TokenRequestToPB(r api.TokenRequest) *pb.CreateTokenRequest {
	p := &pb.CreateTokenRequest{Role: string(r.Role), Uses: intToPB(r.Uses)}
	if r.TTL != 0 {
		p.Ttl = durationpb.New(r.TTL)
	}
	return p
}

// TokenRequestFromPB converts the wish for a token.
func TokenRequestFromPB(p *pb.CreateTokenRequest) api.TokenRequest {
	return api.TokenRequest{Role: api.Role(p.GetRole()), TTL: p.GetTtl().AsDuration(), Uses: intFromPB(p.GetUses())}
}
