package node

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// socketGroup may use the local socket as root may, if the host has it.
const socketGroup = "cloudless"

// maxSocketPath is what fits into a sockaddr_un, beside the temporary suffix.
const maxSocketPath = 100

// listenUnix opens the local socket; whoever may open it operates the cluster.
// A leftover of a killed daemon is replaced. The socket gets its name only
// after its mode and its group, so there is no moment in which others get in.
func listenUnix(path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, api.Invalid("--socket", "%s is longer than %d bytes", path, maxSocketPath)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, api.Invalid("--socket", "cannot create its directory: %v", err)
	}
	if err := checkVacant(path); err != nil {
		return nil, err
	}
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, api.Invalid("--socket", "%v", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	if err != nil {
		return nil, api.Invalid("--socket", "%v", err)
	}
	l.SetUnlinkOnClose(false)
	if err := publish(fresh, path); err != nil {
		l.Close()
		_ = os.Remove(fresh)
		return nil, api.Invalid("--socket", "%v", err)
	}
	return &unixListener{UnixListener: l, path: path}, nil
}

// checkVacant refuses a path where another daemon answers, or where something
// lies that is no socket.
func checkVacant(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return api.Invalid("--socket", "%v", err)
	case info.Mode().Type() != fs.ModeSocket:
		return api.Invalid("--socket", "%s exists and is no socket", path).WithHint("choose another path")
	}
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		conn.Close()
		return api.Errorf(api.KindConflict, "another daemon answers at %s", path).WithHint("give this one its own --socket")
	}
	return nil
}

// publish gives a fresh socket its group, its mode and its name.
func publish(fresh, path string) error {
	if err := os.Chmod(fresh, 0o600); err != nil {
		return err
	}
	if g, err := user.LookupGroup(socketGroup); err == nil && os.Geteuid() == 0 {
		gid, err := strconv.Atoi(g.Gid)
		if err != nil {
			return fmt.Errorf("group %s has the ID %q", socketGroup, g.Gid)
		}
		if err := os.Chown(fresh, -1, gid); err != nil {
			return err
		}
	}
	if err := os.Chmod(fresh, 0o660); err != nil {
		return err
	}
	return os.Rename(fresh, path)
}

// unixListener removes its socket when it is closed. The listener cannot do
// that itself, because it knows only the name that the socket had at first.
type unixListener struct {
	*net.UnixListener
	path  string
	close sync.Once
}

// Close implements net.Listener.
func (l *unixListener) Close() error {
	l.close.Do(func() { _ = os.Remove(l.path) })
	return l.UnixListener.Close()
}
