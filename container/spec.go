package container

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"path"
	"regexp"
	"strings"

	"github.com/cloudless-project/cloudless/api"
)

// Spec is all that a container is given. The zero value of a field is its most
// restrictive setting, except for limits, where zero means unlimited.
type Spec struct {
	ID    string // letters, digits and single separators . _ -, at most 76 characters
	Image string // reference of an unpacked image

	Command    []string          `json:",omitempty"` // replaces the image's entrypoint (and drops its arguments)
	Args       []string          `json:",omitempty"` // replaces the image's arguments
	Env        map[string]string `json:",omitempty"` // added to the image's, which it wins over
	WorkingDir string            // "" = the image's
	User       string            // uid, uid:gid, name or name:group in the image; "" = the image's
	Hostname   string            // "" = ID, cut to 63 characters

	CPULimit    int64 // millicores
	CPUShares   int64 // millicores requested: the share under contention
	MemoryLimit int64 // bytes, swap included: there is none
	PIDLimit    int64 // processes and threads

	Labels map[string]string `json:",omitempty"` // kept with the container, for the caller; never interpreted

	NetNS  string  // path of a network namespace; "" = a new one with nothing but loopback
	Mounts []Mount `json:",omitempty"` // files and directories of the host: resolv.conf, hosts, volumes, secrets
	Tmpfs  []Tmpfs `json:",omitempty"` // beside the small ones on /tmp, /run and /dev/shm

	WritableRootfs bool     // default: read-only
	Capabilities   []string `json:",omitempty"` // added to an empty set, by name without CAP_
	RunAsNonRoot   bool     // refuse to run as uid 0
	Sandbox        string   // "" or "default" = namespaces; "gvisor"
}

// Mount makes a file or directory of the host visible in the container.
type Mount struct {
	Source   string // absolute path on the host
	Target   string // absolute path in the container
	Writable bool
}

// Tmpfs is a size-limited file system in memory, charged to the container.
type Tmpfs struct {
	Target string // absolute path in the container
	Size   int64  // bytes, > 0
}

// The sandboxes.
const (
	SandboxDefault = "default"
	SandboxGVisor  = "gvisor"
)

// Fingerprint is equal for specs that ask for the same container.
func (s *Spec) Fingerprint() string {
	data, err := json.Marshal(s)
	if err != nil {
		panic("container: Spec does not encode: " + err.Error()) // it holds only strings, numbers and maps of strings
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16])
}

// idPattern is containerd's: it is part of paths and cgroup names.
var idPattern = regexp.MustCompile(`^[A-Za-z0-9]+([._-][A-Za-z0-9]+)*$`)

const maxIDLength = 76

// ValidateID tells whether id can name a container.
func ValidateID(id string) error {
	if len(id) > maxIDLength || !idPattern.MatchString(id) {
		return api.Invalid("id", "%q cannot name a container: use letters and digits joined by single . _ or -, at most %d characters", id, maxIDLength)
	}
	return nil
}

// Validate checks what can be checked without a host or an image.
func (s *Spec) Validate() error {
	if err := ValidateID(s.ID); err != nil {
		return err
	}
	if s.Image == "" {
		return api.Invalid("image", "is missing")
	}
	if s.CPULimit < 0 || s.CPUShares < 0 || s.MemoryLimit < 0 || s.PIDLimit < 0 {
		return api.Invalid("resources", "a limit is negative")
	}
	if s.Sandbox != "" && s.Sandbox != SandboxDefault && s.Sandbox != SandboxGVisor {
		return api.Invalid("security.sandbox", "%q is not known", s.Sandbox).WithHint("use %s or %s", SandboxDefault, SandboxGVisor)
	}
	if len(s.Hostname) > 63 {
		return api.Invalid("hostname", "%q is longer than 63 characters", s.Hostname)
	}
	for k := range s.Env {
		if k == "" || strings.ContainsAny(k, "=\x00") {
			return api.Invalid("env", "%q is not a name of a variable", k)
		}
	}
	for _, c := range s.Capabilities {
		if !capabilities[c] {
			return api.Invalid("security.capabilities.add", "%q is not a capability", c).WithHint("write it without CAP_ and in capitals, like NET_BIND_SERVICE")
		}
	}
	return s.validateMounts()
}

func (s *Spec) validateMounts() error {
	targets := make(map[string]bool)
	target := func(t string) error {
		if !path.IsAbs(t) || path.Clean(t) != t || t == "/" || t == "/proc" || strings.HasPrefix(t, "/proc/") || t == "/sys" || strings.HasPrefix(t, "/sys/") || t == "/dev" {
			return api.Invalid("mounts", "%q cannot be mounted on", t)
		}
		if targets[t] {
			return api.Invalid("mounts", "%s is mounted on twice", t)
		}
		targets[t] = true
		return nil
	}
	for _, m := range s.Mounts {
		if !path.IsAbs(m.Source) {
			return api.Invalid("mounts", "source %q is not an absolute path", m.Source)
		}
		if err := target(m.Target); err != nil {
			return err
		}
	}
	for _, t := range s.Tmpfs {
		if t.Size <= 0 {
			return api.Invalid("tmpfs", "%s needs a size", t.Target)
		}
		if err := target(t.Target); err != nil {
			return err
		}
	}
	return nil
}

var capabilities = func() map[string]bool {
	names := strings.Fields(`AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN
		DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN
		MAC_OVERRIDE MKNOD NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP
		SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO
		SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM`)
	set := make(map[string]bool, len(names))
	for _, n := range names {
		set[n] = true
	}
	return set
}()
