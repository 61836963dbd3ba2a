package wire

import (
	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
)

// AuthorityToPB converts a generation of the authority.
func AuthorityToPB(a api.Authority) *pb.Authority {
	return &pb.Authority{
		Certificate: a.Certificate,
		AnnouncedAt: timeToPB(a.AnnouncedAt),
		Urgent:      a.Urgent,
		IssuesSince: timeToPB(a.IssuesSince),
		RetireAt:    timeToPB(a.RetireAt),
		RetiredAt:   timeToPB(a.RetiredAt),
	}
}

// AuthorityFromPB converts a generation of the authority.
func AuthorityFromPB(p *pb.Authority) api.Authority {
	return api.Authority{
		Certificate: p.GetCertificate(),
		AnnouncedAt: timeFromPB(p.GetAnnouncedAt()),
		Urgent:      p.GetUrgent(),
		IssuesSince: timeFromPB(p.GetIssuesSince()),
		RetireAt:    timeFromPB(p.GetRetireAt()),
		RetiredAt:   timeFromPB(p.GetRetiredAt()),
	}
}

func authorityUseToPB(u api.AuthorityUse) *pb.AuthorityUse {
	if u == (api.AuthorityUse{}) {
		return nil
	}
	return &pb.AuthorityUse{Certified: int64(u.Certified), Knows: int64(u.Knows), Holds: int64(u.Holds)}
}

func authorityUseFromPB(p *pb.AuthorityUse) api.AuthorityUse {
	return api.AuthorityUse{Certified: int(p.GetCertified()), Knows: int(p.GetKnows()), Holds: int(p.GetHolds())}
}

func authorityGenerationToPB(g api.AuthorityGeneration) *pb.AuthorityGeneration {
	return &pb.AuthorityGeneration{
		Authority:  AuthorityToPB(g.Authority),
		Generation: int64(g.Generation),
		NotAfter:   timeToPB(g.NotAfter),
		Issues:     g.Issues,
		Known:      int64(g.Known),
		Certified:  int64(g.Certified),
		Holders:    int64(g.Holders),
		Nodes:      int64(g.Nodes),
	}
}

func authorityGenerationFromPB(p *pb.AuthorityGeneration) api.AuthorityGeneration {
	return api.AuthorityGeneration{
		Authority:  AuthorityFromPB(p.GetAuthority()),
		Generation: int(p.GetGeneration()),
		NotAfter:   timeFromPB(p.GetNotAfter()),
		Issues:     p.GetIssues(),
		Known:      int(p.GetKnown()),
		Certified:  int(p.GetCertified()),
		Holders:    int(p.GetHolders()),
		Nodes:      int(p.GetNodes()),
	}
}

// AuthorityStatusToPB converts the authority as the leader sees it.
func AuthorityStatusToPB(s api.AuthorityStatus) *pb.AuthorityStatus {
	return &pb.AuthorityStatus{
		Phase: string(s.Phase), Generations: list(s.Generations, authorityGenerationToPB), Waiting: s.Waiting, Current: s.Current,
	}
}

// AuthorityStatusFromPB converts the authority as the leader sees it.
func AuthorityStatusFromPB(p *pb.AuthorityStatus) api.AuthorityStatus {
	return api.AuthorityStatus{
		Phase:       api.AuthorityPhase(p.GetPhase()),
		Generations: list(p.GetGenerations(), authorityGenerationFromPB),
		Waiting:     p.GetWaiting(),
		Current:     p.GetCurrent(),
	}
}
