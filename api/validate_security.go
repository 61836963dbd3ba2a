package api

import (
	"fmt"
	"slices"
	"strings"
)

// capabilityNames are the kernel's, in the order of their numbers
// (include/uapi/linux/capability.h), without CAP_.
var capabilityNames = []string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
	"LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
	"SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
	"SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
	"MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
	"CHECKPOINT_RESTORE",
}

func (s *WorkloadSpec) validateSecurity(p *problems, at func(string) string) {
	if uid, _, _ := strings.Cut(s.User, ":"); s.Security.RunAsNonRoot && (uid == "root" || strings.Trim(uid, "0") == "" && uid != "") {
		p.addHint(at("runAsNonRoot"), "name another user, or leave runAsNonRoot out", "user is %s, which is root", s.User)
	}
	s.Security.Capabilities.validate(p, at("capabilities.add"))
	switch s.Security.Sandbox {
	case DefaultSandbox:
	case "gvisor":
		// Asked for and absent means refuse, never downgrade (CLD-REQ-062).
		p.unsupported(at("sandbox"), "write sandbox: default, or leave it out", "sandbox gvisor is not supported by this version")
	default:
		p.oneOf(at("sandbox"), s.Security.Sandbox, DefaultSandbox)
	}
}

func (c *Capabilities) validate(p *problems, field string) {
	if !p.atMost(field, "capabilities", len(c.Add), len(capabilityNames)) {
		return
	}
	for i, name := range c.Add {
		at := fmt.Sprintf("%s[%d]", field, i)
		plain := strings.TrimPrefix(strings.ToUpper(name), "CAP_")
		switch {
		case !slices.Contains(capabilityNames, plain):
			p.add(at, "%q is not a capability of the kernel", clip(name))
		case plain != name:
			p.addHint(at, "write "+plain, "%q has another spelling here", name)
		case slices.Contains(c.Add[:i], name):
			p.add(at, "%s is there already", name)
		}
	}
}
