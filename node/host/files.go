package host

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

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
	mode := loose(e.Root, e.DataDir, 0o777)
	switch {
	case mode&0o022 != 0:
		return fail(name, "chmod 700 "+e.DataDir, "others can write to %s (mode %04o), and so replace the keys of this node", e.DataDir, mode)
	case mode&0o077 != 0:
		return warn(name, "chmod 700 "+e.DataDir, "others can look into %s (mode %04o): only the modes of single files protect the keys", e.DataDir, mode)
	}
	return ok(name, "%s is closed to others", e.DataDir)
}

// keyFiles looks for files that others can get at: they may read the file, and
// pass through every directory above it. The keys themselves have to be closed
// in any case, for whoever makes a copy of the directory.
func (e Examination) keyFiles(context.Context) (api.Check, bool) {
	const name = "key-files"
	base := below(e.DataDir)
	if _, err := fs.ReadDir(e.Root, base); err != nil {
		return notMade() // none yet, or not for us to see
	}
	var open []string
	looked := 0
	reachable := map[string]bool{path.Dir(base): true} // directories, by others
	_ = fs.WalkDir(e.Root, base, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil // gone meanwhile
		}
		info, err := entry.Info()
		if err != nil {
			return nil
		}
		above, bits := reachable[path.Dir(file)], info.Mode().Perm()&0o077
		switch {
		case entry.IsDir() && slices.Contains(foreign, entry.Name()) && path.Dir(file) == base:
			return fs.SkipDir
		case entry.IsDir():
			reachable[file] = above && bits&0o011 != 0
		case entry.Type().IsRegular():
			if looked++; looked > maxLooked {
				return fs.SkipAll
			}
			if bits != 0 && (above || strings.HasSuffix(file, ".key")) {
				open = append(open, fmt.Sprintf("/%s (%04o)", file, info.Mode().Perm()))
			}
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
