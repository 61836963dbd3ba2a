//go:build linux

package supervise

import (
	"bytes"
	"os"
	"strconv"
	"text/template"

	"golang.org/x/sys/unix"
)

// ownOOMScore makes the kernel choose almost anything before containerd.
const ownOOMScore = -900

// configTemplate is understood by containerd 1.6 to 2.x, which migrates it. Off
// are: Kubernetes' interface, which listens on a port; the restart monitor,
// which runs what labels name; and snapshotters that are never chosen and only
// complain. (io.containerd.runtime.v1.linux stays: 1.6 serves no tasks without.)
var configTemplate = template.Must(template.New("config.toml").Parse(`# Written by cloudless at every start; changes are lost.
version = 2
root = {{.Root}}
state = {{.State}}
oom_score = {{.OOMScore}}
disabled_plugins = [
  "io.containerd.grpc.v1.cri",
  "io.containerd.cri.v1.images",
  "io.containerd.cri.v1.runtime",
  "io.containerd.internal.v1.restart",
  "io.containerd.monitor.container.v1.restart",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.erofs",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.nri.v1.nri",
  "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.internal.v1.tracing",
  "io.containerd.internal.v1.opt",
]

[grpc]
  address = {{.Address}}
  uid = 0
  gid = 0

[ttrpc]
  address = {{.TTRPC}}

[debug]
  level = "warn"
`))

func configFile(root, state, address string, oomScore int) []byte {
	var b bytes.Buffer
	err := configTemplate.Execute(&b, map[string]any{
		"Root": strconv.Quote(root), "State": strconv.Quote(state), "OOMScore": oomScore,
		"Address": strconv.Quote(address), "TTRPC": strconv.Quote(address + ".ttrpc"),
	})
	if err != nil {
		panic("supervise: config template: " + err.Error()) // the values are strings and a number
	}
	return b.Bytes()
}

// oomScore returns the score that containerd may set: lowering takes a
// capability that a container's root may lack.
func oomScore() int {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3, Pid: int32(os.Getpid())}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil || data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) == 0 {
		return 0
	}
	return ownOOMScore
}
