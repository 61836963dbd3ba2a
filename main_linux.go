package main

import (
	"context"
	"os"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/cli"
	"github.com/cloudless-project/cloudless/container/logfile"
	"github.com/cloudless-project/cloudless/internal/buildinfo"
	"github.com/cloudless-project/cloudless/internal/obs"
	"github.com/cloudless-project/cloudless/node"
)

// helper runs what the container runtime, not a person, starts this binary for.
func helper(args []string) (code int, done bool) {
	if len(args) > 0 && args[0] == logfile.Command {
		return logfile.Main(args[1:]), true
	}
	return 0, false
}

// daemon gives the command line the node that it can start here.
func daemon() []cli.Option {
	return []cli.Option{cli.Daemon(func(ctx context.Context, c cli.NodeConfig) error {
		log, err := obs.NewLogger(os.Stderr, os.Getenv("CLOUDLESS_LOG"))
		if err != nil {
			return err
		}
		return node.Run(ctx, node.Config{
			DataDir:       c.DataDir,
			Init:          c.Init,
			Cluster:       c.Cluster,
			Join:          c.Join,
			Name:          c.Name,
			Region:        c.Region,
			Zone:          c.Zone,
			Labels:        c.Labels,
			Taints:        c.Taints,
			Listen:        c.Listen,
			Announce:      c.Announce,
			Public:        c.Public,
			Anchor:        c.Anchor,
			RelayLimit:    c.RelayLimit,
			Socket:        c.Socket,
			APIListen:     c.APIListen,
			MetricsListen: c.MetricsListen,
			Containerd:    c.Containerd,
			NoWorkloads:   c.NoWorkloads,
			Bandwidth:     c.Bandwidth,
			RaftTiming:    c.RaftTiming,
			CgroupParent:  os.Getenv("CLOUDLESS_CGROUP_PARENT"),
			Version:       buildinfo.Read(),
		}, log)
	}), cli.Restorer(restore), cli.HostDoctor(examineHost)}
}

func restore(ctx context.Context, c cli.RestoreConfig) (cli.Restored, error) {
	r, err := node.Restore(ctx, node.RestoreConfig{DataDir: c.DataDir, Name: c.Name, Backup: c.Backup, Size: c.Size, Key: c.Key})
	return cli.Restored{Cluster: r.Cluster.ID, ClusterName: r.Cluster.Name, Node: r.Node, Name: r.Name, Epoch: r.Cluster.Epoch}, err
}

func examineHost(ctx context.Context, c cli.HostConfig) []api.Check {
	return node.ExamineHost(ctx, node.HostConfig{DataDir: c.DataDir, Socket: c.Socket, Containerd: c.Containerd})
}
