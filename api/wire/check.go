package wire

import (
	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
)

// CheckToPB converts what a doctor found.
func CheckToPB(c api.Check) *pb.Check {
	return &pb.Check{Name: c.Name, Status: string(c.Status), Detail: c.Detail, Fix: c.Fix}
}

// CheckFromPB converts what a doctor found.
func CheckFromPB(p *pb.Check) api.Check {
	return api.Check{Name: p.GetName(), Status: api.CheckStatus(p.GetStatus()), Detail: p.GetDetail(), Fix: p.GetFix()}
}
