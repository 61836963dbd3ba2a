package control

import (
	"github.com/cloudless-project/cloudless/api"
)

// targets returns the replicas that have not ended and that a name means: one
// replica by its ID, or all of a workload. It answers from the last view.
func (s *Server) targets(target string) ([]api.Replica, error) {
	var found []api.Replica
	for _, r := range s.cfg.View().Replicas {
		if string(r.ID) == target || r.Workload == target {
			found = append(found, r)
		}
	}
	if len(found) == 0 {
		return nil, api.Errorf(api.KindNotFound, "there is no workload or replica %q that runs", target).
			WithHint("see what runs with: cloudless workload list; of what has ended no output is kept")
	}
	return found, nil
}

// nodeName returns a node's name for people.
func (s *Server) nodeName(id api.NodeID) string {
	for _, n := range s.cfg.View().Nodes {
		if n.ID == id {
			return n.Inventory.Name
		}
	}
	return string(id)
}

// checkRuntime returns an error on nodes that run no workloads.
func (s *Server) checkRuntime() error {
	if s.cfg.Runtime == nil {
		return api.Errorf(api.KindUnsupported, "this node runs no workloads")
	}
	return nil
}
