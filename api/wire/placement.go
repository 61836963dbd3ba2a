package wire

import (
	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
)

func placementToPB(s api.Placement) *pb.Placement {
	return &pb.Placement{
		Strategy: s.Strategy,
		SpreadBy: s.SpreadBy,
		Affinity: list(s.Affinity, func(a api.Affinity) *pb.Affinity {
			return &pb.Affinity{Key: a.Key, Operator: a.Operator, Values: a.Values, Weight: intToPB(a.Weight), Required: a.Required}
		}),
		AntiAffinity: list(s.AntiAffinity, func(a api.AntiAffinity) *pb.AntiAffinity {
			return &pb.AntiAffinity{Workload: a.Workload, Topology: a.Topology, Required: a.Required}
		}),
		Tolerations: list(s.Tolerations, func(t api.Toleration) *pb.Toleration {
			return &pb.Toleration{Key: t.Key, Value: t.Value, Effect: t.Effect}
		}),
	}
}

func placementFromPB(p *pb.Placement) api.Placement {
	return api.Placement{
		Strategy: p.GetStrategy(),
		SpreadBy: p.GetSpreadBy(),
		Affinity: list(p.GetAffinity(), func(a *pb.Affinity) api.Affinity {
			return api.Affinity{
				Key: a.GetKey(), Operator: a.GetOperator(), Values: a.GetValues(),
				Weight: intFromPB(a.GetWeight()), Required: a.GetRequired(),
			}
		}),
		AntiAffinity: list(p.GetAntiAffinity(), func(a *pb.AntiAffinity) api.AntiAffinity {
			return api.AntiAffinity{Workload: a.GetWorkload(), Topology: a.GetTopology(), Required: a.GetRequired()}
		}),
		Tolerations: list(p.GetTolerations(), func(t *pb.Toleration) api.Toleration {
			return api.Toleration{Key: t.GetKey(), Value: t.GetValue(), Effect: t.GetEffect()}
		}),
	}
}
