package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/internal/atomicfile"
)

const (
	keyFile        = "node.key"
	membershipFile = "membership.json"
	viewFile       = "view.json"
	incarnFile     = "incarnation.json"
	lockFile       = "lock"
)

// minFree is the disk space below which a daemon does not start: a Raft log or
// a certificate that cannot be written is worse than a node that is away.
const minFree = 64 << 20

// dataDir is the node's directory, locked against a second daemon.
type dataDir struct {
	*os.Root
	path string
	lock *os.File
}

// openDataDir creates the directory if need be and locks it.
func openDataDir(path string) (*dataDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, api.Invalid("--data-dir", "cannot create %s: %v", path, err)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, api.Invalid("--data-dir", "cannot open %s: %v", path, err)
	}
	if err := tighten(root, path); err != nil {
		root.Close()
		return nil, err
	}
	lock, err := root.OpenFile(lockFile, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		root.Close()
		return nil, api.Invalid("--data-dir", "cannot write to %s: %v", path, err)
	}
	d := &dataDir{Root: root, path: path, lock: lock}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		d.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, api.Errorf(api.KindConflict, "another daemon runs on %s", path).
				WithHint("stop it first, or give this one its own --data-dir")
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err == nil && st.Bavail*uint64(st.Bsize) < minFree {
		free := st.Bavail * uint64(st.Bsize)
		d.Close()
		return nil, api.Errorf(api.KindExhausted, "the disk of %s is full: %d MiB free, at least %d MiB are needed", path, free>>20, minFree>>20).
			WithHint("free some space, or move --data-dir to another disk")
	}
	return d, nil
}

// tighten keeps others out of a directory that was there already: not every
// file in it is private by itself. It does so to the daemon's own alone, for
// whoever names one that is shared has made a mistake.
func tighten(root *os.Root, path string) error {
	info, err := root.Stat(".")
	if err != nil {
		return api.Invalid("--data-dir", "cannot look at %s: %v", path, err)
	}
	if info.Mode().Perm()&0o077 == 0 {
		return nil
	}
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return api.Invalid("--data-dir", "cannot read %s: %v", path, err)
	}
	own := func(e fs.DirEntry) bool { return e.Name() == keyFile }
	foreign := func(e fs.DirEntry) bool { return e.Name() != lockFile && e.Name() != "lost+found" }
	if !slices.ContainsFunc(entries, own) && slices.ContainsFunc(entries, foreign) {
		return api.Invalid("--data-dir", "%s is open to others and has files in it that are not the daemon's", path).
			WithHint("choose a directory of its own, e.g. %s", filepath.Join(path, "cloudless"))
	}
	if err := root.Chmod(".", 0o700); err != nil {
		return api.Invalid("--data-dir", "cannot keep others out of %s: %v", path, err).
			WithHint("give the directory to the user that runs the daemon, with mode 0700")
	}
	return nil
}

// Close releases the lock.
func (d *dataDir) Close() {
	d.lock.Close()
	d.Root.Close()
}

// join returns the absolute path of a name below the directory, for parts that
// need a path (sockets, databases).
func (d *dataDir) join(elem ...string) string {
	return filepath.Join(append([]string{d.path}, elem...)...)
}

// saveJSON replaces a file with v, durably.
func (d *dataDir) saveJSON(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	return atomicfile.Write(d.Root, name, b, 0o600)
}

// loadJSON reads a file into v; fs.ErrNotExist when there is none.
func (d *dataDir) loadJSON(name string, v any) error {
	b, err := d.ReadFile(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("read %s: %w", filepath.Join(d.path, name), err)
	}
	return nil
}

// membership is what makes a node a member; written at enrolment and whenever
// the certificate is renewed or the anchors move.
type membership struct {
	Cluster     string        `json:"cluster"` // ID
	Name        string        `json:"name"`
	CA          []byte        `json:"ca"`          // DER
	Certificate []byte        `json:"certificate"` // DER
	Anchor      bool          `json:"anchor"`      // holds the authority and a Raft log
	Founded     bool          `json:"founded"`     // on an anchor: its Raft log was begun, an empty one is a loss
	Epoch       uint64        `json:"epoch"`       // the highest one seen; see api.Cluster
	Contacts    []contactFile `json:"contacts"`
}

// contactFile is an anchor that this node can call.
type contactFile struct {
	ID        api.NodeID `json:"id"`
	Addresses []string   `json:"addresses"`
}

// loadMembership returns nil when the node has not enrolled yet.
func (d *dataDir) loadMembership() (*membership, error) {
	var m membership
	switch err := d.loadJSON(membershipFile, &m); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, api.Errorf(api.KindInternal, "the membership of this node cannot be read: %w", err).
			WithHint("restore %s from a backup, or empty the data directory and join again", d.join(membershipFile))
	}
	return &m, nil
}

// nextIncarnation numbers the daemon that starts now: higher than those before
// it, whatever the clock says. A device without a battery behind its clock
// starts in the past, and its reports would be taken for old ones.
func nextIncarnation(dir *dataDir, now time.Time) (uint64, error) {
	var last uint64
	if err := dir.loadJSON(incarnFile, &last); err != nil && !errors.Is(err, fs.ErrNotExist) {
		last = 0 // torn or foreign: the clock is the better guess
	}
	next := max(uint64(max(now.UnixNano(), 0)), last+1)
	return next, dir.saveJSON(incarnFile, next)
}
