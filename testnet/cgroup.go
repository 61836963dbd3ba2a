//go:build linux

package testnet

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// hierarchy is one mounted cgroup tree: a controller of version 1, or the
// unified tree of version 2.
type hierarchy struct {
	mount   string // /sys/fs/cgroup/memory
	options string // what mount wants: "memory", "none,name=systemd", "" for version 2
	unified bool
}

// hierarchies lists the cgroup trees of this machine.
func hierarchies() ([]hierarchy, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list cgroup hierarchies: %w", err)
	}
	defer f.Close()
	var list []hierarchy
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		// 36 35 0:31 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
		before, after, ok := strings.Cut(sc.Text(), " - ")
		fields, super := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(super) < 3 {
			continue
		}
		switch super[0] {
		case "cgroup2":
			list = append(list, hierarchy{mount: fields[4], unified: true})
		case "cgroup":
			list = append(list, hierarchy{mount: fields[4], options: controllers(super[2])})
		}
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("list cgroup hierarchies: %w", err)
	}
	return list, nil
}

// controllers picks what names a version 1 hierarchy out of its mount options.
func controllers(super string) string {
	var keep []string
	for o := range strings.SplitSeq(super, ",") {
		switch {
		case o == "rw" || o == "ro" || o == "xattr" || o == "clone_children" || strings.HasPrefix(o, "release_agent"):
		case strings.HasPrefix(o, "name="):
			keep = append(keep, "none", o)
		default:
			keep = append(keep, o)
		}
	}
	return strings.Join(keep, ",")
}

func cgroupRoot(id string) string { return "cl-testnet-" + id }

// makeCgroups creates the cgroup of a device in every hierarchy and returns
// their directories.
func makeCgroups(id, device string) ([]string, error) {
	list, err := hierarchies()
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, h := range list {
		dir := h.mount
		for _, name := range []string{cgroupRoot(id), device} {
			parent := dir
			dir = filepath.Join(dir, name)
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return nil, fmt.Errorf("make cgroup: %w", err)
			}
			if h.unified {
				enableControllers(parent)
				continue
			}
			if err := inheritCpuset(parent, dir); err != nil {
				return nil, err
			}
		}
		dirs = append(dirs, dir)
	}
	return dirs, nil
}

// inheritCpuset fills the two files without which a version 1 cpuset takes no
// process.
func inheritCpuset(parent, dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		v, err := os.ReadFile(filepath.Join(parent, name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("make cgroup: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), v, 0o644); err != nil {
			return fmt.Errorf("make cgroup: %w", err)
		}
	}
	return nil
}

// enableControllers hands every controller of a version 2 cgroup to its
// children, one by one: a controller that cannot be had is no reason to go
// without the others.
func enableControllers(dir string) {
	all, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return
	}
	for c := range strings.FieldsSeq(string(all)) {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0o644)
	}
}

// killCgroup kills everything below the lab's cgroup, or one device's, and
// removes it. It is how the lab ends processes: by what it made, never by a
// number that may have been given to somebody else since.
func killCgroup(ctx context.Context, id, device string) error {
	list, err := hierarchies()
	if err != nil {
		return err
	}
	var errs []error
	for _, h := range list {
		top := filepath.Join(h.mount, cgroupRoot(id), device)
		errs = append(errs, emptyCgroup(ctx, top))
		if device != "" { // the lab's own directory goes with the last device
			_ = os.Remove(filepath.Dir(top))
		}
	}
	return errors.Join(errs...)
}

func emptyCgroup(ctx context.Context, top string) error {
	for {
		dirs, pids := readCgroup(top)
		if len(dirs) == 0 {
			return nil
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		for i := len(dirs) - 1; i >= 0; i-- { // children first
			_ = os.Remove(dirs[i])
		}
		if _, err := os.Stat(top); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("remove cgroup %s: %d processes left: %w", top, len(pids), ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// readCgroup lists a cgroup, parents first, and the processes in it.
func readCgroup(top string) (dirs []string, pids []int) {
	_ = filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return nil // gone in the meantime
		}
		dirs = append(dirs, path)
		b, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		for line := range strings.FieldsSeq(string(b)) {
			if pid, err := strconv.Atoi(line); err == nil && pid > 1 {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return dirs, pids
}
