package cli

import (
	"context"
	"sync"
	"time"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
)

// fakeAuthority is an authority whose change comes one step further with every
// look at it.
type fakeAuthority struct {
	pb.UnimplementedAuthorityServiceServer

	mu     sync.Mutex
	steps  []api.AuthorityStatus // to come
	status api.AuthorityStatus
}

func newFakeAuthority() *fakeAuthority {
	return &fakeAuthority{status: api.AuthorityStatus{
		Phase: api.AuthoritySettled, Current: true,
		Generations: []api.AuthorityGeneration{{
			Authority:  api.Authority{AnnouncedAt: noon.Add(-90 * 24 * time.Hour), IssuesSince: noon.Add(-90 * 24 * time.Hour)},
			Generation: 1, NotAfter: noon.Add(3560 * 24 * time.Hour), Issues: true, Known: 3, Certified: 3, Holders: 1, Nodes: 3,
		}},
	}}
}

func (f *fakeAuthority) GetAuthority(context.Context, *pb.GetAuthorityRequest) (*pb.GetAuthorityResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.steps) > 0 {
		f.status, f.steps = f.steps[0], f.steps[1:]
	}
	return &pb.GetAuthorityResponse{Status: wire.AuthorityStatusToPB(f.status)}, nil
}

func (f *fakeAuthority) RotateAuthority(_ context.Context, r *pb.RotateAuthorityRequest) (*pb.RotateAuthorityResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.status.Phase == api.AuthorityAnnounced {
		return nil, wire.ErrorToStatus(api.Errorf(api.KindConflict, "authority 2 has been announced and does not issue yet").
			WithHint("see what it waits for: cloudless anchor authority"))
	}
	first := f.status.Generations[0]
	second := api.AuthorityGeneration{
		Authority:  api.Authority{AnnouncedAt: noon, Urgent: r.GetUrgent()},
		Generation: 2, NotAfter: noon.Add(3650 * 24 * time.Hour), Known: 1, Holders: 1, Nodes: 3,
	}
	announced := api.AuthorityStatus{Phase: api.AuthorityAnnounced, Waiting: "nodes that have not heard of it yet: nas, pi", Generations: []api.AuthorityGeneration{first, second}}
	first.RetireAt, first.Issues, first.Certified = noon.Add(15*24*time.Hour), false, 1
	second.IssuesSince, second.Issues, second.Known, second.Certified = noon, true, 3, 2
	issuing := api.AuthorityStatus{Phase: api.AuthorityIssuing, Waiting: "nodes whose certificate is of an earlier one: nas (down)", Generations: []api.AuthorityGeneration{first, second}}
	current := issuing
	current.Current = true
	first.RetiredAt, first.Certified = noon, 0
	settled := api.AuthorityStatus{Phase: api.AuthoritySettled, Current: true, Generations: []api.AuthorityGeneration{first, second}}
	f.status, f.steps = announced, []api.AuthorityStatus{announced, issuing, current, settled}
	return &pb.RotateAuthorityResponse{Status: wire.AuthorityStatusToPB(f.status)}, nil
}
