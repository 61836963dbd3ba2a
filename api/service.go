package api

import "time"

// DomainSuffix ends the DNS name of every service.
const DomainSuffix = "cloudless.internal"

// Service is a stable name and virtual IP for the replicas of a workload.
type Service struct {
	Name    string `json:"name"`
	VIP     string `json:"vip"`
	Ports   []Port `json:"ports"`
	Version uint64 `json:"version"`
}

// DNS returns the service's name in the cluster's domain.
func (s *Service) DNS() string { return s.Name + "." + DomainSuffix }

// Endpoint is a replica that a service may send traffic to.
type Endpoint struct {
	Replica ReplicaID `json:"replica"`
	Node    NodeID    `json:"node"`
	Address string    `json:"address"` // IP on its node
	Ready   bool      `json:"ready"`
	Weight  int       `json:"weight"`
	Path    Path      `json:"path"`   // as seen by the answering peer
	RTT     float64   `json:"rtt_ms"` // as seen by the answering peer
}

// ServiceStatus is a service with its endpoints.
type ServiceStatus struct {
	Service
	Endpoints []Endpoint `json:"endpoints"`

	StaleSince time.Time `json:"stale_since,omitzero"` // no anchor has been heard since; zero while one is
}
