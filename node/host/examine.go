package host

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/cloudless-project/cloudless/api"
)

// Examination is what a doctor of the host looks at, and with.
type Examination struct {
	Root       fs.FS  // stands for "/"
	DataDir    string // of the node; it need not exist
	Socket     string // of the node's API
	Containerd string // socket

	Disk   func(dir string) (Space, error)
	Clock  func() (synchronised, known bool)
	Answer func(ctx context.Context, socket string) error // nil when a containerd does
	Find   func(program string) bool                      // in the usual places
	Lacks  string                                         // what the process may not do, "" when it may everything
}

// Space is what a filesystem has.
type Space struct {
	Device      string // "MAJOR:MINOR"
	Free, Total uint64 // bytes
	Files       uint64 // that may still be made; 0 when the filesystem does not count
	Counts      bool
}

// Run examines the host. Checks that could not be made, for want of rights or
// of the thing itself, are not among the results.
func (e Examination) Run(ctx context.Context) []api.Check {
	var checks []api.Check
	for _, check := range []func(context.Context) (api.Check, bool){
		e.privileges, e.kernel, e.cgroups, e.namespaces, e.overlay, e.runtime, e.sandbox, e.clock, e.disk,
		e.dataDir, e.keyFiles, e.sockets, e.kernelHardening, e.networkHardening, e.accounts, e.ssh, e.swap, e.updates,
	} {
		if c, made := check(ctx); made {
			checks = append(checks, c)
		}
	}
	return checks
}

func ok(name, format string, args ...any) (api.Check, bool) {
	return api.Check{Name: name, Status: api.CheckOK, Detail: fmt.Sprintf(format, args...)}, true
}

func warn(name, fix, format string, args ...any) (api.Check, bool) {
	return api.Check{Name: name, Status: api.CheckWarn, Detail: fmt.Sprintf(format, args...), Fix: fix}, true
}

func fail(name, fix, format string, args ...any) (api.Check, bool) {
	return api.Check{Name: name, Status: api.CheckFail, Detail: fmt.Sprintf(format, args...), Fix: fix}, true
}

// notMade is the result of a check that does not apply here.
func notMade() (api.Check, bool) { return api.Check{}, false }

// loose returns which permissions of a file are among the forbidden ones.
func loose(root fs.FS, name string, forbidden fs.FileMode) fs.FileMode {
	info, err := fs.Stat(root, below(name))
	if err != nil {
		return 0
	}
	return info.Mode().Perm() & forbidden
}

// existing returns the nearest directory above that is there.
func existing(root fs.FS, dir string) string {
	for !exists(root, below(dir)) && dir != "/" {
		dir = path.Dir(dir)
	}
	return dir
}

// several lists at most a few things for one line.
func several(all []string) string {
	const most = 6
	if len(all) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(all[:most], ", "), len(all)-most)
	}
	return strings.Join(all, ", ")
}
