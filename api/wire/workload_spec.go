package wire

import (
	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
)

// WorkloadSpecToPB converts what a user asks for.
func WorkloadSpecToPB(s api.WorkloadSpec) *pb.WorkloadSpec {
	return &pb.WorkloadSpec{
		Image:        s.Image,
		Command:      s.Command,
		Args:         s.Args,
		Env:          s.Env,
		WorkingDir:   s.WorkingDir,
		User:         s.User,
		Replicas:     intToPB(s.Replicas),
		Resources:    resourceSpecToPB(s.Resources),
		Placement:    placementToPB(s.Placement),
		Ports:        list(s.Ports, portToPB),
		Probes:       probesToPB(s.Probes),
		Restart:      restartToPB(s.Restart),
		Update:       updateToPB(s.Update),
		OnDisconnect: &pb.OnDisconnect{Mode: s.OnDisconnect.Mode, After: durationToPB(s.OnDisconnect.After)},
		Security:     securityToPB(s.Security),
	}
}

// WorkloadSpecFromPB converts what a user asks for.
func WorkloadSpecFromPB(p *pb.WorkloadSpec) api.WorkloadSpec {
	return api.WorkloadSpec{
		Image:      p.GetImage(),
		Command:    p.GetCommand(),
		Args:       p.GetArgs(),
		Env:        p.GetEnv(),
		WorkingDir: p.GetWorkingDir(),
		User:       p.GetUser(),
		Replicas:   intFromPB(p.GetReplicas()),
		Resources:  resourceSpecFromPB(p.GetResources()),
		Placement:  placementFromPB(p.GetPlacement()),
		Ports:      list(p.GetPorts(), portFromPB),
		Probes:     probesFromPB(p.GetProbes()),
		Restart:    restartFromPB(p.GetRestart()),
		Update:     updateFromPB(p.GetUpdate()),
		OnDisconnect: api.OnDisconnect{
			Mode:  p.GetOnDisconnect().GetMode(),
			After: durationFromPB(p.GetOnDisconnect().GetAfter()),
		},
		Security: securityFromPB(p.GetSecurity()),
	}
}

func resourceSpecToPB(r api.ResourceSpec) *pb.ResourceSpec {
	p := &pb.ResourceSpec{
		CpuMillis:    int64(r.CPU),
		MemoryBytes:  int64(r.Memory),
		StorageBytes: int64(r.Storage),
		BandwidthBps: int64(r.Bandwidth),
		Pids:         r.PIDs,
	}
	if r.Limits != nil {
		p.Limits = &pb.LimitSpec{CpuMillis: int64(r.Limits.CPU), MemoryBytes: int64(r.Limits.Memory)}
	}
	return p
}

func resourceSpecFromPB(p *pb.ResourceSpec) api.ResourceSpec {
	r := api.ResourceSpec{
		CPU:       api.CPU(p.GetCpuMillis()),
		Memory:    api.Bytes(p.GetMemoryBytes()),
		Storage:   api.Bytes(p.GetStorageBytes()),
		Bandwidth: api.Bandwidth(p.GetBandwidthBps()),
		PIDs:      p.GetPids(),
	}
	if l := p.GetLimits(); l != nil {
		r.Limits = &api.LimitSpec{CPU: api.CPU(l.GetCpuMillis()), Memory: api.Bytes(l.GetMemoryBytes())}
	}
	return r
}

func portToPB(p api.Port) *pb.Port {
	return &pb.Port{Name: p.Name, Port: intToPB(p.Port), Target: intToPB(p.Target), Protocol: p.Protocol}
}

func portFromPB(p *pb.Port) api.Port {
	return api.Port{Name: p.GetName(), Port: intFromPB(p.GetPort()), Target: intFromPB(p.GetTarget()), Protocol: p.GetProtocol()}
}

func restartToPB(r api.RestartPolicy) *pb.RestartPolicy {
	return &pb.RestartPolicy{
		Policy:  r.Policy,
		Backoff: &pb.Backoff{Initial: durationToPB(r.Backoff.Initial), Max: durationToPB(r.Backoff.Max)},
	}
}

func restartFromPB(p *pb.RestartPolicy) api.RestartPolicy {
	return api.RestartPolicy{
		Policy: p.GetPolicy(),
		Backoff: api.Backoff{
			Initial: durationFromPB(p.GetBackoff().GetInitial()),
			Max:     durationFromPB(p.GetBackoff().GetMax()),
		},
	}
}

func updateToPB(u api.UpdatePolicy) *pb.UpdatePolicy {
	return &pb.UpdatePolicy{
		MinAvailable:    pointer(u.MinAvailable, intToPB),
		MaxSurge:        intToPB(u.MaxSurge),
		Order:           u.Order,
		MinHealthy:      durationToPB(u.MinHealthy),
		HealthyDeadline: durationToPB(u.HealthyDeadline),
		OnFailure:       u.OnFailure,
	}
}

func updateFromPB(p *pb.UpdatePolicy) api.UpdatePolicy {
	u := api.UpdatePolicy{
		MaxSurge:        intFromPB(p.GetMaxSurge()),
		Order:           p.GetOrder(),
		MinHealthy:      durationFromPB(p.GetMinHealthy()),
		HealthyDeadline: durationFromPB(p.GetHealthyDeadline()),
		OnFailure:       p.GetOnFailure(),
	}
	if p != nil {
		u.MinAvailable = pointer(p.MinAvailable, intFromPB)
	}
	return u
}

func securityToPB(s api.SecuritySpec) *pb.SecuritySpec {
	return &pb.SecuritySpec{
		RunAsNonRoot:   s.RunAsNonRoot,
		ReadOnlyRootfs: s.ReadOnlyRootfs,
		Capabilities:   &pb.Capabilities{Add: s.Capabilities.Add},
		Sandbox:        s.Sandbox,
	}
}

func securityFromPB(p *pb.SecuritySpec) api.SecuritySpec {
	s := api.SecuritySpec{
		RunAsNonRoot: p.GetRunAsNonRoot(),
		Capabilities: api.Capabilities{Add: p.GetCapabilities().GetAdd()},
		Sandbox:      p.GetSandbox(),
	}
	if p != nil {
		s.ReadOnlyRootfs = p.ReadOnlyRootfs
	}
	return s
}
