package client

import (
	"context"
	"errors"
	"io"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
)

// Anchors returns every node that is an anchor, or about to be one, by name.
func (c *Client) Anchors(ctx context.Context) ([]api.AnchorStatus, error) {
	r, err := c.anchors.ListAnchors(ctx, &pb.ListAnchorsRequest{})
	if err != nil {
		return nil, err
	}
	return all(r.GetAnchors(), wire.AnchorFromPB), nil
}

// SetAnchorPolicy decides whether a node, given its name or ID, becomes or
// stays an anchor, and returns which node that is.
func (c *Client) SetAnchorPolicy(ctx context.Context, node string, policy api.AnchorPolicy) (id api.NodeID, name string, err error) {
	r, err := c.anchors.SetAnchorPolicy(ctx, &pb.SetAnchorPolicyRequest{Node: node, Policy: string(policy)})
	if err != nil {
		return "", "", err
	}
	return api.NodeID(r.GetId()), r.GetName(), nil
}

// TransferLeadership makes another voter, given its name or ID, the leader.
func (c *Client) TransferLeadership(ctx context.Context, node string) (id api.NodeID, name string, err error) {
	r, err := c.anchors.TransferLeadership(ctx, &pb.TransferLeadershipRequest{Node: node})
	if err != nil {
		return "", "", err
	}
	return api.NodeID(r.GetId()), r.GetName(), nil
}

// SetRecoveryKey decides to which key, by its public half, the snapshots are
// sealed that ordinary nodes keep; replace one that is there on purpose only.
func (c *Client) SetRecoveryKey(ctx context.Context, public []byte, replace bool) error {
	_, err := c.anchors.SetRecoveryKey(ctx, &pb.SetRecoveryKeyRequest{Public: public, Replace: replace})
	return err
}

// Snapshots returns the sealed snapshots that the nodes keep which this one
// reaches, the newest first. It needs no anchor.
func (c *Client) Snapshots(ctx context.Context) ([]api.Snapshot, error) {
	r, err := c.anchors.ListSnapshots(ctx, &pb.ListSnapshotsRequest{Everywhere: true})
	if err != nil {
		return nil, err
	}
	return all(r.GetSnapshots(), wire.SnapshotFromPB), nil
}

// FetchSnapshot writes a snapshot that a node keeps to w. It needs no anchor.
func (c *Client) FetchSnapshot(ctx context.Context, s api.Snapshot, w io.Writer) error {
	stream, err := c.anchors.FetchSnapshot(ctx, &pb.FetchSnapshotRequest{Node: string(s.Node), Epoch: s.Epoch, Index: s.Index})
	if err != nil {
		return err
	}
	return save(stream.Recv, w)
}

// Backup writes a backup of the cluster to w, sealed with key (32 bytes), which
// the caller made from a passphrase or a key file and salt.
func (c *Client) Backup(ctx context.Context, key, salt []byte, w io.Writer) error {
	stream, err := c.anchors.Backup(ctx, &pb.BackupRequest{Key: key, Salt: salt})
	if err != nil {
		return err
	}
	return save(stream.Recv, w)
}

// save writes what the messages of a stream carry to w, until the stream ends.
func save[M interface{ GetData() []byte }](next func() (M, error), w io.Writer) error {
	for {
		msg, err := next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := w.Write(msg.GetData()); err != nil {
			return api.Errorf(api.KindInternal, "write what was received: %w", err)
		}
	}
}
