package api

import (
	"fmt"
	"time"
)

// The defaults of a workload's spec.
const (
	DefaultCPU             = CPU(100)
	DefaultMemory          = Bytes(64 << 20)
	DefaultPIDs            = 512 // enough for a threaded server, too few for a fork bomb
	DefaultAffinityWeight  = 50
	DefaultMaxSurge        = 1
	DefaultProbePeriod     = Duration(2 * time.Second)
	DefaultProbeTimeout    = Duration(time.Second)
	DefaultProbeFailures   = 3
	DefaultBackoffInitial  = Duration(500 * time.Millisecond)
	DefaultBackoffMax      = Duration(60 * time.Second)
	DefaultHealthyDeadline = Duration(5 * time.Minute)
	DefaultDisconnectAfter = Duration(30 * time.Second)
	LeastDisconnectStop    = Duration(15 * time.Second) // three announcements of the leader
	DefaultSandbox         = "default"
	DefaultReplicas        = 1
)

// SetDefaults fills in what the user left out. Calling it again changes
// nothing. Replicas stays as it is, because 0 is a legal wish: whoever builds a
// spec starts from DefaultReplicas. Update.MinAvailable stays nil, because its
// default follows the number of replicas; read it through MinAvailable.
func (s *WorkloadSpec) SetDefaults() {
	if ref, err := NormaliseImageRef(s.Image); err == nil {
		s.Image = ref // a bad one is for Validate to report
	}
	s.Resources.setDefaults()
	s.Placement.setDefaults()
	for i := range s.Ports {
		s.Ports[i].setDefaults()
	}
	s.Probes.Readiness.setDefaults()
	s.Probes.Liveness.setDefaults()
	setDefault(&s.Restart.Policy, RestartAlways)
	setDefault(&s.Restart.Backoff.Initial, DefaultBackoffInitial)
	setDefault(&s.Restart.Backoff.Max, max(DefaultBackoffMax, s.Restart.Backoff.Initial))
	setDefault(&s.Update.MaxSurge, DefaultMaxSurge)
	setDefault(&s.Update.Order, OrderStartFirst)
	setDefault(&s.Update.HealthyDeadline, DefaultHealthyDeadline)
	setDefault(&s.OnDisconnect.Mode, DisconnectReplace)
	setDefault(&s.OnDisconnect.After, DefaultDisconnectAfter)
	setDefault(&s.Security.Sandbox, DefaultSandbox)
	if s.Security.ReadOnlyRootfs == nil {
		yes := true
		s.Security.ReadOnlyRootfs = &yes
	}
}

// MinAvailable returns how many replicas must stay ready whatever Cloudless
// does of its own accord: what the spec says, else one less than there are, at
// least 1 when there are several; never more than there are.
func (s *WorkloadSpec) MinAvailable() int {
	if s.Update.MinAvailable != nil {
		return min(*s.Update.MinAvailable, s.Replicas)
	}
	return max(s.Replicas-1, 0)
}

func (r *ResourceSpec) setDefaults() {
	setDefault(&r.CPU, DefaultCPU)
	setDefault(&r.Memory, DefaultMemory)
	setDefault(&r.PIDs, DefaultPIDs)
}

func (l *Placement) setDefaults() {
	setDefault(&l.Strategy, StrategyBinpack)
	if l.Strategy == StrategySpread {
		setDefault(&l.SpreadBy, TopologyNode)
	}
	for i := range l.Affinity {
		if !l.Affinity[i].Required {
			setDefault(&l.Affinity[i].Weight, DefaultAffinityWeight)
		}
	}
	for i := range l.AntiAffinity {
		setDefault(&l.AntiAffinity[i].Topology, TopologyNode)
	}
}

func (p *Port) setDefaults() {
	setDefault(&p.Protocol, ProtocolTCP)
	setDefault(&p.Target, p.Port)
	setDefault(&p.Name, fmt.Sprintf("%s-%d", p.Protocol, p.Port))
}

func (b *Probe) setDefaults() {
	if b == nil {
		return
	}
	setDefault(&b.Period, DefaultProbePeriod)
	setDefault(&b.Timeout, DefaultProbeTimeout)
	setDefault(&b.Failures, DefaultProbeFailures)
	if b.HTTP != nil {
		setDefault(&b.HTTP.Path, "/")
	}
}

// setDefault sets *v unless it is set already.
func setDefault[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}
