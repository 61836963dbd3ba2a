package state

import (
	"github.com/cloudless-project/cloudless/api"
)

// CreateCluster writes the cluster's record, once.
type CreateCluster struct {
	Cluster api.Cluster `json:"cluster"`
}

func (c CreateCluster) apply(t *tx) (any, error) {
	if len(clusters.all(t.txn)) > 0 {
		return nil, api.Errorf(api.KindExists, "the cluster has been created already")
	}
	if err := checkID("id", c.Cluster.ID); err != nil {
		return nil, err
	}
	if err := checkName("name", c.Cluster.Name); err != nil {
		return nil, err
	}
	row := c.Cluster
	row.Version = t.index
	clusters.put(t, &row)
	t.event(api.CodeClusterCreated, row.CreatedAt, "ClusterCreated", api.Object{Kind: "cluster", Name: row.Name}, "",
		"cluster %s was created", row.Name)
	return row, nil
}
