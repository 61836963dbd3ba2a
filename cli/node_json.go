package cli

import (
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// nodeJSON is a node as scripts see it.
type nodeJSON struct {
	ID      api.NodeID `json:"id"`
	Name    string     `json:"name"`
	State   string     `json:"state"`
	Reason  string     `json:"reason"`
	Problem string     `json:"problem,omitempty"`

	AnchorProblem string    `json:"anchor_problem,omitempty"` // why its part among the anchors has halted
	StaleSince    time.Time `json:"stale_since,omitzero"`     // no anchor answered: as of then

	Region    string            `json:"region"`
	Zone      string            `json:"zone"`
	Labels    map[string]string `json:"labels"`
	Taints    []api.Taint       `json:"taints"`
	Roles     []string          `json:"roles"`
	Arch      string            `json:"arch"`
	OS        string            `json:"os"`
	Kernel    string            `json:"kernel"`
	Runtime   string            `json:"runtime"`
	Version   string            `json:"version"`
	Addresses []string          `json:"addresses"`
	Subnet    string            `json:"subnet"`
	Path      api.Path          `json:"path"`
	RTT       float64           `json:"rtt_ms"`
	NAT       api.NAT           `json:"nat"`

	Cgroup          string              `json:"cgroup"`
	StorageClass    api.StorageClass    `json:"storage_class"`
	GPUs            []api.GPU           `json:"gpus"`
	Power           *powerJSON          `json:"power"` // null: the device does not say
	BandwidthSource api.BandwidthSource `json:"bandwidth_source"`

	Capacity  resourcesJSON `json:"capacity"`
	Allocated resourcesJSON `json:"allocated"`
	Replicas  int           `json:"replicas"`
	LastSeen  moment        `json:"last_seen"`
	JoinedAt  moment        `json:"joined_at"`
}

func newNodeJSON(n api.NodeStatus) nodeJSON {
	i := n.Inventory
	return nodeJSON{
		ID:      n.ID,
		Name:    i.Name,
		State:   nodeState(n),
		Reason:  n.StateReason,
		Problem: n.Problem,

		AnchorProblem: n.AnchorProblem,
		StaleSince:    n.StaleSince,

		Region:    i.Region,
		Zone:      i.Zone,
		Labels:    nodeLabels(n),
		Taints:    append([]api.Taint{}, i.Taints...),
		Roles:     append([]string{}, n.Roles...),
		Arch:      i.Arch,
		OS:        i.OS,
		Kernel:    i.Kernel,
		Runtime:   i.Runtime,
		Version:   i.Version,
		Addresses: append([]string{}, i.Addresses...),
		Subnet:    n.Subnet,
		Path:      n.Path,
		RTT:       n.RTT,
		NAT:       i.NAT,

		Cgroup:          i.Cgroup,
		StorageClass:    i.StorageClass,
		GPUs:            append([]api.GPU{}, i.GPUs...),
		Power:           newPowerJSON(i.Power),
		BandwidthSource: i.BandwidthSource,

		Capacity:  newResourcesJSON(i.Capacity),
		Allocated: newResourcesJSON(n.Allocated),
		Replicas:  n.Replicas,
		LastSeen:  moment(n.LastSeen),
		JoinedAt:  moment(n.JoinedAt),
	}
}

// resourcesJSON is an amount of resources as scripts see it: numbers, where
// manifests have texts like 250m.
type resourcesJSON struct {
	CPU       int64 `json:"cpu_millis"`
	Memory    int64 `json:"memory_bytes"`
	Storage   int64 `json:"storage_bytes"`
	Bandwidth int64 `json:"bandwidth_bps"`
}

func newResourcesJSON(r api.Resources) resourcesJSON {
	return resourcesJSON{int64(r.CPU), int64(r.Memory), int64(r.Storage), int64(r.Bandwidth)}
}

// powerJSON is what a device runs on as scripts see it.
type powerJSON struct {
	Source  api.PowerSource `json:"source"`
	Percent int             `json:"percent"` // 0 without a battery
}

func newPowerJSON(p api.Power) *powerJSON {
	if p.Source == "" {
		return nil
	}
	return &powerJSON{p.Source, p.Percent}
}
