package agent

import (
	"strconv"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/container"
)

// The labels that this package keeps with its containers.
const (
	labelWorkload = "workload"
	labelRestarts = "restarts"
)

// containerSpec says how a replica becomes a container on this node.
func containerSpec(r *api.Replica, at Attachment, restarts int) container.Spec {
	s := &r.Spec
	env := map[string]string{
		"CLOUDLESS_WORKLOAD": r.Workload,
		"CLOUDLESS_REPLICA":  string(r.ID),
	}
	for k, v := range s.Env {
		env[k] = v
	}
	cpu, memory := s.Resources.CPU, s.Resources.Memory
	if l := s.Resources.Limits; l != nil {
		cpu, memory = max(cpu, l.CPU), max(memory, l.Memory)
	}
	spec := container.Spec{
		ID:           string(r.ID),
		Image:        s.Image,
		Command:      s.Command,
		Args:         s.Args,
		Env:          env,
		WorkingDir:   s.WorkingDir,
		User:         s.User,
		CPULimit:     int64(cpu),
		CPUShares:    int64(s.Resources.CPU),
		MemoryLimit:  int64(memory),
		PIDLimit:     s.Resources.PIDs,
		NetNS:        at.NetNS,
		Capabilities: s.Security.Capabilities.Add,
		RunAsNonRoot: s.Security.RunAsNonRoot,
		Sandbox:      s.Security.Sandbox,
		Labels: map[string]string{
			labelWorkload: r.Workload,
			labelRestarts: strconv.Itoa(restarts),
		},
	}
	if ro := s.Security.ReadOnlyRootfs; ro != nil {
		spec.WritableRootfs = !*ro
	}
	if at.ResolvConf != "" {
		spec.Mounts = append(spec.Mounts, container.Mount{Source: at.ResolvConf, Target: "/etc/resolv.conf"})
	}
	return spec
}
