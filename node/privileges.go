package node

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cloudless-project/cloudless/api"
)

// checkPrivileges says at once what a worker is not allowed to do here.
func checkPrivileges(cfg *Config) error {
	if cfg.NoWorkloads {
		return nil
	}
	if missing := missingPrivileges(); missing != "" {
		return api.Errorf(api.KindDenied, "running workloads takes root and its capabilities: %s", missing).
			WithHint("start it with sudo (or give the unit or container that runs it these capabilities), or with --no-workloads as a pure anchor or relay")
	}
	return nil
}

// missingPrivileges tells what this process lacks to make namespaces, networks
// and mounts; "" when it lacks nothing.
func missingPrivileges() string {
	if os.Geteuid() != 0 {
		return "this process is not root"
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return "" // a kernel without capabilities: being root is all there is
	}
	var missing []string
	for _, c := range []struct {
		bit  uint
		name string
	}{
		{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN (virtual IPs and the container network)"},
		{unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN (mounts and namespaces)"},
	} {
		if data[c.bit/32].Effective&(1<<(c.bit%32)) == 0 {
			missing = append(missing, c.name)
		}
	}
	if len(missing) == 0 {
		return ""
	}
	return "this process lacks " + strings.Join(missing, " and ")
}
