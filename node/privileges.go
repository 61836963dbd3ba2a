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
	if os.Geteuid() != 0 {
		return api.Errorf(api.KindDenied, "running workloads takes root: namespaces, cgroups and mounts are made for every container").
			WithHint("start it with sudo, or with --no-workloads as a pure anchor or relay")
	}
	needed := []struct {
		bit  uint
		name string
		what string
	}{
		{unix.CAP_NET_ADMIN, "NET_ADMIN", "virtual IPs and the container network"},
		{unix.CAP_SYS_ADMIN, "SYS_ADMIN", "mounts and namespaces"},
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return nil // a kernel without capabilities: being root is all there is
	}
	var missing []string
	for _, c := range needed {
		if data[c.bit/32].Effective&(1<<(c.bit%32)) == 0 {
			missing = append(missing, "CAP_"+c.name+" (for "+c.what+")")
		}
	}
	if len(missing) > 0 {
		return api.Errorf(api.KindDenied, "this process lacks %s", strings.Join(missing, " and ")).
			WithHint("give the container or unit that runs it these capabilities, or start it with --no-workloads")
	}
	return nil
}
