package dataplane

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// namespace is a network namespace held open.
type namespace struct{ file *os.File }

// openNamespace opens a namespace by the path of its file. It fails with
// errNotNamespace when the path is something else, such as the empty file that
// a crash or a reboot leaves behind.
func openNamespace(path string) (*namespace, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("stat namespace %s: %w", path, err)
	}
	if fs.Type != unix.NSFS_MAGIC {
		_ = f.Close()
		return nil, errNotNamespace
	}
	return &namespace{f}, nil
}

var errNotNamespace = errors.New("not a namespace")

// newNamespace makes a namespace, runs setup in it, and returns it.
func newNamespace(setup func() error) (ns *namespace, err error) {
	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		if err := setup(); err != nil {
			return err
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return fmt.Errorf("open network namespace: %w", err)
		}
		ns = &namespace{f}
		return nil
	})
	return ns, err
}

// do runs f on a thread inside the namespace.
func (n *namespace) do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return f()
	})
}

// Close lets go of the namespace, which ends when nothing else holds it.
func (n *namespace) Close() error { return n.file.Close() }

// onThread runs f on a thread of its own. The goroutine never unlocks the
// thread, so the runtime ends it together with the goroutine: a thread that
// entered another namespace is never reused for anything else.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

// sysctl sets a kernel parameter of the calling thread's network namespace. It
// writes only what differs, because /proc/sys may be read-only where everything
// is as it should be.
func sysctl(name, value string) error {
	path := "/proc/sys/" + name
	old, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if strings.Join(strings.Fields(string(old)), " ") == value {
		return nil
	}
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		return fmt.Errorf("set %s to %s: %w", name, value, err)
	}
	return nil
}
