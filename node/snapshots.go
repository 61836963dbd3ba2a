package node

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/security/identity"
)

// snapshotsDir holds the sealed snapshots that this node keeps for the cluster.
const snapshotsDir = "snapshots"

const (
	snapshotsKept   = 2
	maxSnapshot     = 64 << 20    // bytes
	snapshotReserve = 4 * minFree // that a snapshot leaves on the disk
	incomingFile    = "incoming.tmp"
	snapshotSuffix  = ".clb"
)

// snapshots are the sealed snapshots on this node's disk. It cannot open them;
// it can only give them back.
type snapshots struct {
	daemon *daemon
	mu     sync.Mutex // held while they change
}

// Keep implements control.Snapshots. It takes a whole snapshot of this cluster
// from an anchor that counts, and drops all but the newest.
func (s *snapshots) Keep(from api.NodeID, content io.Reader) error {
	if !s.daemon.isAnchor(from) {
		return api.Errorf(api.KindDenied, "%s is no anchor", from)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	root, err := s.root()
	if err != nil {
		return err
	}
	defer root.Close()
	defer func() { _ = root.Remove(incomingFile) }() // gone already when it was kept
	f, err := root.OpenFile(incomingFile, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("keep snapshot: %w", err)
	}
	defer f.Close()
	size, err := io.Copy(f, io.LimitReader(content, maxSnapshot+1))
	if err != nil {
		return fmt.Errorf("keep snapshot: %w", err)
	}
	if size > maxSnapshot {
		return api.Errorf(api.KindExhausted, "a snapshot of more than %d MiB is too large", maxSnapshot>>20)
	}
	h, err := identity.ReadBackupHeader(f, size)
	if err != nil {
		return err
	}
	if err := s.check(h); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("keep snapshot: %w", err)
	}
	if err := root.Rename(incomingFile, snapshotName(h.Epoch, h.Index)); err != nil {
		return fmt.Errorf("keep snapshot: %w", err)
	}
	return s.prune(root)
}

// check refuses a snapshot that is not sealed, not this cluster's, or of an
// anchor that a restored backup has put out of office.
func (s *snapshots) check(h identity.BackupHeader) error {
	switch {
	case h.Cluster != s.daemon.member.Cluster:
		return api.Errorf(api.KindDenied, "the snapshot is of cluster %q", h.Cluster)
	case len(h.Sealed) == 0:
		return api.Errorf(api.KindDenied, "the snapshot is not sealed to a recovery key")
	case h.Epoch < s.daemon.epoch():
		return api.Errorf(api.KindDenied, "the snapshot is of epoch %d, the cluster is in epoch %d", h.Epoch, s.daemon.epoch())
	}
	return nil
}

// root opens the directory and makes sure that there is room.
func (s *snapshots) root() (*os.Root, error) {
	dir := s.daemon.dir
	if err := dir.MkdirAll(snapshotsDir, 0o700); err != nil {
		return nil, fmt.Errorf("keep snapshot: %w", err)
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir.path, &st); err == nil && st.Bavail*uint64(st.Bsize) < snapshotReserve {
		return nil, api.Errorf(api.KindExhausted, "the disk of %s has no room for a snapshot", dir.path)
	}
	return dir.OpenRoot(snapshotsDir)
}

func (s *snapshots) prune(root *os.Root) error {
	all := s.read(root)
	for _, old := range all[min(snapshotsKept, len(all)):] {
		if err := root.Remove(snapshotName(old.Epoch, old.Index)); err != nil {
			return fmt.Errorf("drop snapshot: %w", err)
		}
	}
	return nil
}

func snapshotName(epoch, index uint64) string {
	return fmt.Sprintf("%d-%d%s", epoch, index, snapshotSuffix)
}

// read lists what is in the directory, the newest first. What is damaged is not
// listed: it is of no use to anybody.
func (s *snapshots) read(root *os.Root) (out []api.Snapshot) {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), snapshotSuffix) {
			continue
		}
		if one, err := s.readOne(root, e.Name()); err == nil {
			out = append(out, one)
		}
	}
	slices.SortFunc(out, func(a, b api.Snapshot) int {
		return cmp.Or(-cmp.Compare(a.Epoch, b.Epoch), -cmp.Compare(a.Index, b.Index))
	})
	return out
}

func (s *snapshots) readOne(root *os.Root, name string) (api.Snapshot, error) {
	f, err := root.Open(name)
	if err != nil {
		return api.Snapshot{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return api.Snapshot{}, err
	}
	h, err := identity.ReadBackupHeader(f, info.Size())
	if err != nil {
		return api.Snapshot{}, err
	}
	return api.Snapshot{
		Node: s.daemon.self, NodeName: s.daemon.cfg.Name, Epoch: h.Epoch, Index: h.Index,
		Size: info.Size(), CreatedAt: h.CreatedAt, Key: h.Recovery,
	}, nil
}

// List implements control.Snapshots.
func (s *snapshots) List() []api.Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	root, err := s.daemon.dir.OpenRoot(snapshotsDir)
	if err != nil {
		return nil // it was never given one
	}
	defer root.Close()
	return s.read(root)
}

// Open implements control.Snapshots.
func (s *snapshots) Open(epoch, index uint64) (io.ReadCloser, error) {
	f, err := s.daemon.dir.Open(snapshotsDir + "/" + snapshotName(epoch, index))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, api.Errorf(api.KindNotFound, "this node does not keep that snapshot").
			WithHint("see who keeps which with: cloudless anchor snapshots")
	}
	return f, err
}

// sealSnapshot makes a snapshot of a state.
func (a *anchor) sealSnapshot(h identity.BackupHeader, public []byte, write func(io.Writer) error) ([]byte, error) {
	key, err := h.SealTo(public)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	var out bytes.Buffer
	if err := a.keys.authority().WriteBackup(&out, h, key, write); err != nil {
		return nil, err
	}
	if out.Len() > maxSnapshot {
		return nil, api.Errorf(api.KindExhausted, "the sealed state has %d MiB, at most %d are handed out", out.Len()>>20, maxSnapshot>>20)
	}
	return out.Bytes(), nil
}
