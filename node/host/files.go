package host

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"github.com/cloudless-project/cloudless/api"
)

// maxLooked bounds how many files of a data directory are looked at.
const maxLooked = 10_000

// foreign are the parts of a data directory that hold what containers and
// images brought, with the permissions that they have there.
var foreign = []string{"containerd", "logs", "images"}

func (e Examination) dataDir(context.Context) (api.Check, bool) {
	const name = "data-dir"
	if !exists(e.Root, below(e.DataDir)) {
		return notMade()
	}
	if bits := loose(e.Root, e.DataDir, 0o077); bits != 0 {
		return fail(name, "chmod 700 "+e.DataDir, "%s is open to others (mode %04o): it holds the keys of this node", e.DataDir, loose(e.Root, e.DataDir, 0o777))
	}
	return ok(name, "%s is closed to others", e.DataDir)
}

func (e Examination) keyFiles(context.Context) (api.Check, bool) {
	const name = "key-files"
	if _, err := fs.ReadDir(e.Root, below(e.DataDir)); err != nil {
		return notMade() // none yet, or not for us to see
	}
	var open []string
	looked := 0
	_ = fs.WalkDir(e.Root, below(e.DataDir), func(file string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil // gone meanwhile
		case entry.IsDir() && slices.Contains(foreign, entry.Name()) && path.Dir(file) == below(e.DataDir):
			return fs.SkipDir
		case !entry.Type().IsRegular():
			return nil
		}
		if looked++; looked > maxLooked {
			return fs.SkipAll
		}
		if info, err := entry.Info(); err == nil && info.Mode().Perm()&0o077 != 0 {
			open = append(open, fmt.Sprintf("/%s (%04o)", file, info.Mode().Perm()))
		}
		return nil
	})
	if len(open) > 0 {
		return fail(name, "chmod 600 them, and find out who could read them: a key that others have seen is replaced by removing the node and joining anew",
			"readable by others: %s", several(open))
	}
	return ok(name, "all of %d closed to others", looked)
}

// sockets are those that make whoever can write to them root on this machine.
func (e Examination) sockets(context.Context) (api.Check, bool) {
	const name = "sockets"
	var open, closed []string
	for _, socket := range []string{e.Socket, e.Containerd, "/run/docker.sock", "/run/podman/podman.sock"} {
		if socket == "" || !exists(e.Root, below(socket)) || slices.Contains(closed, socket) {
			continue
		}
		closed = append(closed, socket)
		if loose(e.Root, socket, 0o006) != 0 {
			open = append(open, socket)
		}
	}
	switch {
	case len(open) > 0:
		return fail(name, "chmod o= "+open[0]+", and mend the unit that makes it", "everybody on this machine can use %s, and with it become root", several(open))
	case len(closed) == 0:
		return notMade()
	}
	return ok(name, "%s closed to others", several(closed))
}
