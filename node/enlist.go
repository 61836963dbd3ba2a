package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
	"github.com/cloudless-project/cloudless/security/identity"
)

// enlist makes this node an anchor: it gets the role, then the authority, and
// then the log. What fails is begun anew.
func (o *office) enlist(ctx context.Context, v api.ClusterView) error {
	ctx, cancel := context.WithTimeout(ctx, enlistWithin)
	defer cancel()
	d := o.daemon
	if err := d.renew(ctx); err != nil {
		return fmt.Errorf("get the role: %w", err)
	}
	if member := d.admission.self(); !member.Has(api.RoleAnchor) {
		return api.Errorf(api.KindConflict, "the new certificate does not have the role of an anchor")
	}
	authority, epoch, err := o.fetchAuthority(ctx, v.Leader, false)
	if err != nil {
		return fmt.Errorf("get the authority: %w", err)
	}
	// The leader has made sure that the Raft group does not count on a log of this
	// node's: it may begin with an empty one.
	if err := o.setLogAside(); err != nil {
		return err
	}
	if err := o.wipe(raftDir, authorityDir); err != nil {
		return err
	}
	if err := sealAuthority(d.dir, authority); err != nil {
		return err
	}
	if err := d.changeMembership(func(m *membership) { m.Anchor, m.Founded, m.Epoch = true, false, epoch }); err != nil {
		return err
	}
	if err := o.openWith(authority, epoch, false); err != nil {
		return err
	}
	d.log.Info("this node is an anchor now", zap.Uint64("epoch", epoch))
	return nil
}

// fetchAuthority gets the authority from the leader; keepsLog tells that this
// node is an anchor and does not begin anew.
func (o *office) fetchAuthority(ctx context.Context, leader api.NodeID, keepsLog bool) (*identity.Authority, uint64, error) {
	key, public, err := identity.NewGrantKey()
	if err != nil {
		return nil, 0, err
	}
	conn, err := o.daemon.server.Conn(leader)
	if err != nil {
		return nil, 0, err
	}
	reply, err := pb.NewAnchorServiceClient(conn).FetchAuthority(ctx, &pb.FetchAuthorityRequest{Key: public, KeepsLog: keepsLog})
	if err != nil {
		return nil, 0, wire.ErrorFromStatus(err)
	}
	authority, err := key.Open(reply.GetSealed(), o.daemon.member.Cluster, o.daemon.self)
	return authority, reply.GetEpoch(), err
}

// leave ends a term: the log and the authority are wiped, the role is given
// back.
func (o *office) leave(ctx context.Context) {
	d := o.daemon
	o.vacate()
	d.admission.setAnchor(false)
	if err := d.changeMembership(func(m *membership) { m.Anchor, m.Founded = false, false }); err != nil {
		d.log.Error("could not note that this node is no anchor any more", zap.Error(err))
	}
	if err := o.wipe(anchorDirs...); err != nil {
		d.log.Error("could not wipe what an anchor has", zap.Error(err))
	}
	d.log.Info("this node is no anchor any more")
	if err := d.renew(ctx); err != nil && ctx.Err() == nil {
		d.log.Warn("the certificate keeps the role of an anchor until it is renewed", zap.Error(err))
	}
}

// damagedDir holds a log that could not be trusted, for those who want to know
// why, until the next one.
const damagedDir = "raft.damaged"

// anchorDirs are the directories that only anchors have.
var anchorDirs = []string{raftDir, damagedDir, authorityDir}

// setLogAside keeps a damaged log out of the way of its successor.
func (o *office) setLogAside() error {
	if o.state() != logLost {
		return nil
	}
	if err := o.wipe(damagedDir); err != nil {
		return err
	}
	err := o.daemon.dir.Rename(raftDir, damagedDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("set the damaged log aside: %w", err)
	}
	return nil
}

// wipe removes directories of an anchor.
func (o *office) wipe(names ...string) error {
	for _, name := range names {
		if err := o.daemon.dir.RemoveAll(name); err != nil {
			return fmt.Errorf("wipe %s: %w", name, err)
		}
	}
	return nil
}
