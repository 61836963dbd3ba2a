package wire

import (
	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
)

func probesToPB(p api.Probes) *pb.Probes {
	return &pb.Probes{Readiness: probeToPB(p.Readiness), Liveness: probeToPB(p.Liveness)}
}

func probesFromPB(p *pb.Probes) api.Probes {
	return api.Probes{Readiness: probeFromPB(p.GetReadiness()), Liveness: probeFromPB(p.GetLiveness())}
}

func probeToPB(a *api.Probe) *pb.Probe {
	if a == nil {
		return nil
	}
	p := &pb.Probe{
		InitialDelay: durationToPB(a.InitialDelay),
		Period:       durationToPB(a.Period),
		Timeout:      durationToPB(a.Timeout),
		Failures:     intToPB(a.Failures),
	}
	if a.HTTP != nil {
		p.Http = &pb.HTTPProbe{Path: a.HTTP.Path, Port: intToPB(a.HTTP.Port)}
	}
	if a.TCP != nil {
		p.Tcp = &pb.TCPProbe{Port: intToPB(a.TCP.Port)}
	}
	if a.Exec != nil {
		p.Exec = &pb.ExecProbe{Command: a.Exec.Command}
	}
	return p
}

func probeFromPB(p *pb.Probe) *api.Probe {
	if p == nil {
		return nil
	}
	a := &api.Probe{
		InitialDelay: durationFromPB(p.GetInitialDelay()),
		Period:       durationFromPB(p.GetPeriod()),
		Timeout:      durationFromPB(p.GetTimeout()),
		Failures:     intFromPB(p.GetFailures()),
	}
	if h := p.GetHttp(); h != nil {
		a.HTTP = &api.HTTPProbe{Path: h.GetPath(), Port: intFromPB(h.GetPort())}
	}
	if t := p.GetTcp(); t != nil {
		a.TCP = &api.TCPProbe{Port: intFromPB(t.GetPort())}
	}
	if e := p.GetExec(); e != nil {
		a.Exec = &api.ExecProbe{Command: e.GetCommand()}
	}
	return a
}
