package wire

import (
	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
)

func gpuToPB(g api.GPU) *pb.GPU {
	return &pb.GPU{Vendor: g.Vendor, Model: g.Model, Driver: g.Driver}
}

func gpuFromPB(p *pb.GPU) api.GPU {
	return api.GPU{Vendor: p.GetVendor(), Model: p.GetModel(), Driver: p.GetDriver()}
}

func powerToPB(w api.Power) *pb.Power {
	return &pb.Power{Source: string(w.Source), Percent: intToPB(w.Percent)}
}

func powerFromPB(p *pb.Power) api.Power {
	return api.Power{Source: api.PowerSource(p.GetSource()), Percent: intFromPB(p.GetPercent())}
}
