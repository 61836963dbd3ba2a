package node

import (
	"context"
	"io"
	"time"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
	"github.com/cloudless-project/cloudless/internal/retry"
	"github.com/cloudless-project/cloudless/node/control"
	"github.com/cloudless-project/cloudless/p2p"
	"github.com/cloudless-project/cloudless/raftmeta/state"
	"github.com/cloudless-project/cloudless/security/identity"
)

// What follows is the office as the API sees it: control.Anchor, control.Group
// and the functions that only an anchor can answer.

func errVacant() error {
	return api.Errorf(api.KindUnavailable, "this node is no anchor").WithHint("ask again: the call goes to the leader then")
}

// with calls f with the anchor of the moment.
func with[T any](o *office, f func(*anchor) (T, error)) (T, error) {
	if a := o.current(); a != nil {
		return f(a)
	}
	var zero T
	return zero, errVacant()
}

// Propose implements control.Anchor.
func (o *office) Propose(ctx context.Context, cmds ...state.Command) (state.Result, error) {
	return with(o, func(a *anchor) (state.Result, error) { return a.raft.Propose(ctx, cmds...) })
}

// VerifyLeader implements control.Anchor.
func (o *office) VerifyLeader(ctx context.Context) error {
	_, err := with(o, func(a *anchor) (any, error) { return nil, a.raft.VerifyLeader(ctx) })
	return err
}

// IsLeader implements control.Anchor.
func (o *office) IsLeader() bool {
	a := o.current()
	return a != nil && a.raft.IsLeader()
}

// Store implements control.Anchor. After a term it is that term's, and empty
// before the first.
func (o *office) Store() *state.Store {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.store
}

// serve gives the API what only an anchor has.
func (o *office) serve(cfg *control.Config) {
	cfg.Anchor, cfg.Group, cfg.Authority = o, o, o
	cfg.Snapshots = &snapshots{daemon: o.daemon}
	cfg.LastSeen = func(id api.NodeID) time.Time {
		if a := o.current(); a != nil {
			return a.watcher.lastSeen(id)
		}
		return time.Time{}
	}
	cfg.Heard = func(id api.NodeID, incarnation uint64) string {
		if a := o.current(); a != nil {
			return a.watcher.reported(id, incarnation)
		}
		return ""
	}
	cfg.Invite = func(role api.Role) (identity.Token, error) {
		return with(o, func(a *anchor) (identity.Token, error) { return a.invite(role) })
	}
	cfg.Issue = func(csr []byte, to api.Member) ([]byte, error) {
		return with(o, func(a *anchor) ([]byte, error) { return a.issue(csr, to) })
	}
	cfg.Revoke = func(r api.Revocation) (api.Revocation, error) {
		return with(o, func(a *anchor) (api.Revocation, error) {
			authority, err := a.issuer()
			if err != nil {
				return api.Revocation{}, err
			}
			return authority.Revoke(r)
		})
	}
	cfg.Explain = func(v state.View, target string) (api.Explanation, error) {
		return explain(v, target, time.Now())
	}
}

func (a *anchor) issue(csr []byte, to api.Member) ([]byte, error) {
	if id, err := identity.CSRNode(csr); err != nil || id != to.ID {
		return nil, api.Errorf(api.KindDenied, "the certificate request is not by the key of %s", to.ID)
	}
	cert, _, err := a.certify(csr, to.Roles, to.Operator)
	return cert, err
}

// Progress implements control.Group.
func (o *office) Progress() api.AnchorProgress {
	a := o.current()
	if a == nil {
		return api.AnchorProgress{Problem: o.problem(), Lost: o.state() == logLost}
	}
	leader, _ := a.raft.Leader()
	return api.AnchorProgress{Running: true, Epoch: a.epoch, Applied: a.raft.Applied(), Leader: leader}
}

// Anchors implements control.Group.
func (o *office) Anchors(v state.View) []api.AnchorStatus {
	if a := o.current(); a != nil {
		return a.statuses(v)
	}
	return nil
}

// Transfer implements control.Group.
func (o *office) Transfer(ctx context.Context, to api.NodeID) error {
	ctx, cancel := context.WithTimeout(ctx, transferWithin)
	defer cancel()
	for {
		_, err := with(o, func(a *anchor) (any, error) { return nil, a.raft.Transfer(ctx, to) })
		if err == nil || !o.IsLeader() {
			return err
		}
		if retry.Sleep(ctx, 200*time.Millisecond) != nil {
			return api.Errorf(api.KindTimeout, "the other anchor did not take over: %w", err).
				WithHint("it may lag behind: see cloudless anchor list")
		}
	}
}

// transferWithin is how long a successor may take that was away until now: the
// leader sends the log at intervals that grow while nobody answers.
const transferWithin = 8 * time.Second

// Grant implements control.Group.
func (o *office) Grant(ctx context.Context, to api.NodeID, public []byte, keepsLog bool) (sealed []byte, epoch uint64, err error) {
	a := o.current()
	if a == nil {
		return nil, 0, errVacant()
	}
	if keepsLog {
		sealed, err = a.keys.authority().Grant(public, to)
		return sealed, a.epoch, err
	}
	// Whoever gets the authority for the first time begins with an empty log.
	excluded, err := a.raft.Excluded(ctx, to)
	if err != nil {
		return nil, 0, err
	}
	if !excluded {
		return nil, 0, api.Errorf(api.KindConflict, "the Raft group still counts on the log of this node").
			WithHint("it is taken out as soon as a majority of the others is there")
	}
	sealed, err = a.keys.authority().Grant(public, to)
	return sealed, a.epoch, err
}

// invited reports whether a joiner shows a token that this anchor knows.
func (o *office) invited(req p2p.EnrolRequest) bool {
	a := o.current()
	return a != nil && invited(a.raft.Store().View(), req, time.Now())
}

// enrol answers a joiner. An anchor that does not lead has the leader decide.
func (o *office) enrol(ctx context.Context, req p2p.EnrolRequest) (p2p.EnrolReply, error) {
	a := o.current()
	if a == nil {
		return p2p.EnrolReply{}, errVacant()
	}
	e := a.enroller()
	if a.raft.IsLeader() {
		return e.enrol(ctx, req)
	}
	if err := e.check(req); err != nil {
		return p2p.EnrolReply{}, err
	}
	leader, known := a.daemon.leader() // a young follower has heard of it before its log has
	if !known || leader == a.daemon.self {
		return p2p.EnrolReply{}, api.Errorf(api.KindUnavailable, "the anchors have no leader at the moment").
			WithHint("try again in a few seconds")
	}
	conn, err := a.daemon.server.Conn(leader)
	if err != nil {
		return p2p.EnrolReply{}, err
	}
	reply, err := pb.NewAnchorServiceClient(conn).EnrolFor(ctx, &pb.EnrolForRequest{
		TokenId: req.TokenID, Secret: req.Secret, Csr: req.CSR, Name: req.Name, Address: req.Address,
	})
	if err != nil {
		return p2p.EnrolReply{}, wire.ErrorFromStatus(err)
	}
	return e.reply(reply.GetCertificate()), nil
}

// Enrol implements control.Group.
func (o *office) Enrol(ctx context.Context, j control.Joiner) ([]byte, error) {
	return with(o, func(a *anchor) ([]byte, error) {
		peer, err := identity.CSRNode(j.CSR)
		if err != nil {
			return nil, err
		}
		reply, err := a.enroller().enrol(ctx, p2p.EnrolRequest{
			Cluster: a.daemon.member.Cluster, TokenID: j.TokenID, Secret: j.Secret, CSR: j.CSR, Name: j.Name,
			Peer: peer, Address: j.Address,
		})
		return reply.Certificate, err
	})
}

// Backup implements control.Group.
func (o *office) Backup(v state.View, key, salt []byte, w io.Writer) error {
	_, err := with(o, func(a *anchor) (any, error) {
		cluster, _ := v.Cluster()
		h := identity.BackupHeader{
			Cluster: cluster.ID, Name: cluster.Name, Epoch: cluster.Epoch, Index: v.Index(), CreatedAt: time.Now().UTC(), Salt: salt,
		}
		authority, err := a.issuer()
		if err != nil {
			return nil, err
		}
		return nil, authority.WriteBackup(w, h, key, v.Snapshot)
	})
	return err
}

// AuthorityStatus implements control.Authority.
func (o *office) AuthorityStatus(v state.View) (api.AuthorityStatus, error) {
	return with(o, func(a *anchor) (api.AuthorityStatus, error) { return a.authorityStatus(v) })
}

// RotateAuthority implements control.Authority.
func (o *office) RotateAuthority(ctx context.Context, urgent bool) error {
	_, err := with(o, func(a *anchor) (any, error) { return nil, a.announceAuthority(ctx, urgent) })
	return err
}
