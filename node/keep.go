package node

import (
	"context"
	"io"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
	"github.com/cloudless-project/cloudless/raftmeta/anchors"
	"github.com/cloudless-project/cloudless/security/identity"
)

const (
	// keepers is how many ordinary nodes keep each snapshot.
	keepers = 3
	// snapshotEvery is the least time between two snapshots, unless the nodes that
	// keep them or the key have changed.
	snapshotEvery = 5 * time.Minute
	// snapshotBytesPerSecond bounds what snapshots write to the disk of a keeper,
	// to 177 MB a day, because many of them have no better one than an SD card.
	snapshotBytesPerSecond = 2048
	lookAtSnapshots        = 5 * time.Second
	snapshotChunk          = 256 << 10
	snapshotWithin         = 2 * time.Minute
)

// handed is the last snapshot that this leader has handed out.
type handed struct {
	index uint64
	key   string // fingerprint of the recovery key
	to    []api.NodeID
	at    time.Time
	size  int
}

// due reports whether another snapshot is to be handed out.
func (h *handed) due(index uint64, key string, to []api.NodeID, every time.Duration, now time.Time) bool {
	if h.at.IsZero() || h.key != key {
		return true
	}
	pause := max(every, time.Duration(h.size)*time.Second/snapshotBytesPerSecond)
	missing := slices.ContainsFunc(to, func(id api.NodeID) bool { return !slices.Contains(h.to, id) })
	if missing {
		pause = min(pause, time.Minute) // whoever was away, or has joined
	}
	return (missing || index > h.index) && now.Sub(h.at) >= pause
}

// keepSnapshots hands sealed snapshots to ordinary nodes while this anchor
// leads, so that the cluster can be rebuilt when every anchor is lost. It begins
// once there is a recovery key to seal them to.
func (a *anchor) keepSnapshots(ctx context.Context) error {
	var last handed
	every := a.daemon.cfg.SnapshotEvery
	look := time.NewTicker(min(lookAtSnapshots, every))
	defer look.Stop()
	for {
		v := a.raft.Store().View()
		cluster, _ := v.Cluster()
		to := anchors.Keepers(v.Nodes(), keepers)
		key := identity.RecoveryFingerprint(cluster.RecoveryKey)
		if len(cluster.RecoveryKey) > 0 && len(to) > 0 && last.due(v.Index(), key, to, every, time.Now()) {
			h := identity.BackupHeader{
				Cluster: cluster.ID, Name: cluster.Name, Epoch: cluster.Epoch, Index: v.Index(), CreatedAt: time.Now().UTC(),
			}
			content, err := a.sealSnapshot(h, cluster.RecoveryKey, func(w io.Writer) error { return v.Snapshot(w) })
			if err != nil {
				a.daemon.log.Warn("no snapshot for the other nodes", zap.Error(err))
			}
			last = handed{index: v.Index(), key: key, at: time.Now(), size: len(content), to: a.handOut(ctx, content, to)}
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// handOut gives a snapshot to nodes and returns those that keep it now.
func (a *anchor) handOut(ctx context.Context, content []byte, to []api.NodeID) (kept []api.NodeID) {
	if len(content) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, snapshotWithin)
	defer cancel()
	var mu sync.Mutex
	var group sync.WaitGroup
	for _, id := range to {
		group.Go(func() {
			if err := a.handTo(ctx, content, id); err != nil {
				a.daemon.log.Info("a node did not take a snapshot", zap.String("peer", string(id)), zap.Error(err))
				return
			}
			mu.Lock()
			defer mu.Unlock()
			kept = append(kept, id)
		})
	}
	group.Wait()
	a.daemon.office.handedOut(len(kept), time.Now())
	return kept
}

func (a *anchor) handTo(ctx context.Context, content []byte, to api.NodeID) error {
	conn, err := a.daemon.server.Conn(to)
	if err != nil {
		return err
	}
	stream, err := pb.NewAnchorServiceClient(conn).KeepSnapshot(ctx)
	if err != nil {
		return wire.ErrorFromStatus(err)
	}
	for chunk := range slices.Chunk(content, snapshotChunk) {
		if stream.Send(&pb.KeepSnapshotRequest{Data: chunk}) != nil {
			break // the answer says why
		}
	}
	if _, err := stream.CloseAndRecv(); err != nil {
		return wire.ErrorFromStatus(err)
	}
	return nil
}
