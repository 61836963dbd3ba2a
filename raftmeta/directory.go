package raftmeta

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/internal/atomicfile"
)

// The files of an anchor's directory.
const (
	ownerFile   = "node-id"   // whose directory it is
	lockFile    = "lock"      // held while an anchor has it open
	markFile    = "mark"      // index of the last durable entry; see journal
	walDir      = "wal"       // the log
	snapshotDir = "snapshots" // the snapshots, by raft
)

// minFree is the room that an anchor wants to find: a few segments of the log
// and two snapshots.
const minFree = 64 << 20

// directory is an anchor's data directory, locked for this process.
type directory struct {
	path string
	root *os.Root
	lock *os.File
}

func openDirectory(path string, id api.NodeID) (_ *directory, err error) {
	d := &directory{path: path}
	if err := os.MkdirAll(filepath.Join(path, walDir), 0o700); err != nil {
		return nil, d.explain("", err)
	}
	if d.root, err = os.OpenRoot(path); err != nil {
		return nil, d.explain("", err)
	}
	defer closeOnError(&err, d.Close)
	if err := d.acquire(); err != nil {
		return nil, err
	}
	if err := d.checkRoom(); err != nil {
		return nil, err
	}
	return d, d.checkOwner(id)
}

// acquire keeps a second process out; the log's own lock would wait for ever.
func (d *directory) acquire() (err error) {
	if d.lock, err = d.root.OpenFile(lockFile, os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return d.explain(lockFile, err)
	}
	err = unix.Flock(int(d.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return api.Errorf(api.KindConflict, "another process uses the anchor's directory %s", d.path).
			WithHint("stop the other daemon, or give this one a data directory of its own")
	}
	if err != nil {
		return d.explain(lockFile, err)
	}
	return nil
}

func (d *directory) checkRoom() error {
	free, err := d.free()
	if err != nil {
		return err
	}
	if free < minFree {
		return api.Errorf(api.KindExhausted, "the disk of %s has %d MiB left, an anchor needs %d", d.path, free>>20, minFree>>20).
			WithHint("make room on that disk, then start again")
	}
	return nil
}

// free returns how many bytes the disk has left.
func (d *directory) free() (uint64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(d.path, &fs); err != nil {
		return 0, d.explain("", err)
	}
	return fs.Bavail * uint64(fs.Bsize), nil
}

// checkOwner writes the node's ID into a new directory and compares it in an
// old one: a log under another identity would vote twice.
func (d *directory) checkOwner(id api.NodeID) error {
	owner, err := d.root.ReadFile(ownerFile)
	if errors.Is(err, os.ErrNotExist) {
		if err := atomicfile.Write(d.root, ownerFile, []byte(id), 0o600); err != nil {
			return d.explain(ownerFile, err)
		}
		return nil
	}
	if err != nil {
		return d.explain(ownerFile, err)
	}
	if string(owner) != string(id) {
		return api.Errorf(api.KindConflict, "the anchor's directory %s belongs to node %q, this is %s", d.path, owner, id).
			WithHint("start with the key of that node, or with a fresh data directory")
	}
	return nil
}

// explain says which file failed and what to do about it.
func (d *directory) explain(name string, err error) error {
	path := filepath.Join(d.path, name)
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return api.Errorf(api.KindExhausted, "the disk of %s is full: %w", path, err).
			WithHint("make room on that disk, then start again")
	case errors.Is(err, os.ErrPermission):
		return api.Errorf(api.KindDenied, "%s may not be used: %w", path, err).
			WithHint("give the directory to the user that runs the daemon")
	}
	return fmt.Errorf("use %s: %w", path, err)
}

// damaged is the refusal of a file whose content cannot be trusted.
func (d *directory) damaged(name, format string, args ...any) error {
	what := damage{fmt.Errorf(format, args...)}
	return api.Errorf(api.KindInternal, "%s is damaged: %w", filepath.Join(d.path, name), what).
		WithHint("when other anchors live, this one gets its log from them by itself; otherwise restore a backup with: cloudless anchor restore")
}

// damage is the cause of an error that damaged made.
type damage struct{ error }

// Damaged reports whether an error of Open or Run says that what is on the disk
// cannot be trusted. Such an anchor must not vote again before the Raft group
// has excluded it: see Anchor.Excluded.
func Damaged(err error) bool {
	var d damage
	return errors.As(err, &d)
}

// Close releases the directory.
func (d *directory) Close() error {
	var err error
	if d.lock != nil {
		err = d.lock.Close()
	}
	return errors.Join(err, d.root.Close())
}
