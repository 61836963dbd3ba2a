package cli

import (
	"context"
	"errors"
	"net"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/security/identity"
)

// NodeConfig is what "node start" was told. Texts are checked as far as that is
// possible without looking at the machine; what is empty is left to the daemon.
type NodeConfig struct {
	DataDir       string
	Init          bool   // found a new cluster
	Cluster       string // its name, with Init
	Join          string // the text of a valid token, "" for none
	Name          string
	Region        string
	Zone          string
	Labels        map[string]string
	Taints        []api.Taint
	Listen        []string      // multiaddrs
	Announce      []string      // multiaddrs
	Public        string        // auto, yes or no
	Anchor        string        // auto, never or always
	RelayLimit    api.Bandwidth // relayed for others, 0: no limit
	Socket        string        // never empty
	APIListen     string        // host:port
	MetricsListen string        // host:port
	Containerd    string        // address
	NoWorkloads   bool
	Bandwidth     api.Bandwidth // 0: it is measured
	RaftTiming    string        // auto, lan or wan
}

// nodeStartOptions are the flags as they were typed.
type nodeStartOptions struct {
	config NodeConfig
	join   string
	labels []string
	taints []string
	relay  string
	egress string
}

func (a *app) nodeStartCommand() *cobra.Command {
	var opts nodeStartOptions
	cmd := &cobra.Command{
		Use:   "start --data-dir DIR",
		Short: "Run this device as a node until it is stopped",
		Long: "Run this device as a node until it is stopped.\n\n" +
			"The first node founds the cluster with --init, the others enter it with --join.\n" +
			"Afterwards a node knows its cluster from its data directory and needs neither.",
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.config.Socket = a.socket()
			cfg, err := opts.parse(a)
			if err != nil {
				return err
			}
			return runNodeStart(cmd.Context(), cfg, a.daemon)
		},
	}
	f, c := cmd.Flags(), &opts.config
	f.StringVar(&c.DataDir, "data-dir", "", "`DIR` for keys, state and images, on a durable disk")
	f.BoolVar(&c.Init, "init", false, "found a new cluster")
	f.StringVar(&c.Cluster, "cluster", "", "`NAME` of the new cluster")
	f.StringVar(&opts.join, "join", "", "enter a cluster with `TOKEN`; @FILE reads it from a file, - from stdin")
	f.StringVar(&c.Name, "name", "", "`NAME` of this node (default the host's)")
	f.StringVar(&c.Region, "region", "", "`REGION` it is in")
	f.StringVar(&c.Zone, "zone", "", "`ZONE` it is in, typically one house")
	f.StringArrayVar(&opts.labels, "label", nil, "label it with `K=V`; repeatable")
	f.StringArrayVar(&opts.taints, "taint", nil, "keep workloads away that do not tolerate `K=V:Effect`; repeatable")
	f.StringArrayVar(&c.Listen, "listen", nil, "listen for peers at `MULTIADDR`; repeatable")
	f.StringArrayVar(&c.Announce, "announce", nil, "tell peers of `MULTIADDR` as well; repeatable")
	f.StringVar(&c.Public, "public", "auto", "reachable from the internet: `auto|yes|no`")
	f.StringVar(&c.Anchor, "anchor", "auto", "may become an anchor: `auto|never|always`")
	f.StringVar(&opts.relay, "relay-limit", "", "relay at most `BANDWIDTH` for others, e.g. 50Mbps (default as much as it can)")
	f.StringVar(&opts.egress, "bandwidth", "", "it can send this `BANDWIDTH` to the internet, e.g. 50Mbps (default: measured)")
	f.StringVar(&c.RaftTiming, "raft-timing", "auto", "patience of the anchors with each other: `auto|lan|wan`")
	f.StringVar(&c.APIListen, "api-listen", "", "serve the API with mutual TLS at `HOST:PORT` as well")
	f.StringVar(&c.MetricsListen, "metrics-listen", "", "serve metrics at `HOST:PORT`")
	f.StringVar(&c.Containerd, "containerd", "", "`ADDRESS` of the containerd to use")
	f.BoolVar(&c.NoWorkloads, "no-workloads", false, "run no containers here")
	return cmd
}

// parse checks the flags and reads the token.
func (o *nodeStartOptions) parse(a *app) (NodeConfig, error) {
	cfg := o.config
	if cfg.Init && o.join != "" {
		return NodeConfig{}, startUsage("--init", "cannot be given together with --join").
			WithHint("--init founds a new cluster, --join enters one that is there")
	}
	for _, check := range []func(*NodeConfig) error{checkStartModes, checkStartListens, o.parseLabels, o.parseTaints, o.parseRelayLimit, o.parseBandwidth} {
		if err := check(&cfg); err != nil {
			return NodeConfig{}, err
		}
	}
	if o.join == "" {
		return cfg, nil
	}
	text, err := a.readToken(o.join)
	if err != nil {
		return NodeConfig{}, err
	}
	if _, err := identity.ParseToken(text); err != nil {
		return NodeConfig{}, err
	}
	cfg.Join = text
	return cfg, nil
}

func checkStartModes(c *NodeConfig) error {
	switch {
	case c.DataDir == "":
		return startUsage("--data-dir", "is missing").WithHint("name a directory on a durable disk, e.g. --data-dir /var/lib/cloudless")
	case c.Cluster != "" && !c.Init:
		return startUsage("--cluster", "is the name of a new cluster").WithHint("give it together with --init")
	case c.Public != "auto" && c.Public != "yes" && c.Public != "no":
		return startUsage("--public", "%q is not auto, yes or no", c.Public)
	case c.Anchor != "auto" && c.Anchor != "never" && c.Anchor != "always":
		return startUsage("--anchor", "%q is not auto, never or always", c.Anchor)
	case c.RaftTiming != "auto" && c.RaftTiming != "lan" && c.RaftTiming != "wan":
		return startUsage("--raft-timing", "%q is not auto, lan or wan", c.RaftTiming)
	}
	return nil
}

func checkStartListens(c *NodeConfig) error {
	for flag, address := range map[string]string{"--api-listen": c.APIListen, "--metrics-listen": c.MetricsListen} {
		if address == "" {
			continue
		}
		if _, port, err := net.SplitHostPort(address); err != nil || port == "" {
			return startUsage(flag, "%q is not HOST:PORT", address).WithHint("write it like 127.0.0.1:9090")
		}
	}
	return nil
}

func (o *nodeStartOptions) parseLabels(c *NodeConfig) error {
	labels, err := keyValues("--label", o.labels)
	c.Labels = labels
	return err
}

func (o *nodeStartOptions) parseTaints(c *NodeConfig) error {
	for _, text := range o.taints {
		spec, effect, ok := strings.Cut(text, ":")
		key, value, _ := strings.Cut(spec, "=")
		if !ok || key == "" || (effect != "NoSchedule" && effect != "PreferNoSchedule") {
			return startUsage("--taint", "%q is not a taint", text).
				WithHint("write it like gpu=yes:NoSchedule; effects are NoSchedule and PreferNoSchedule")
		}
		c.Taints = append(c.Taints, api.Taint{Key: key, Value: value, Effect: effect})
	}
	return nil
}

// leastRelay is below what a relayed node needs to stay a member.
const leastRelay = 64_000 // bits per second

func (o *nodeStartOptions) parseRelayLimit(c *NodeConfig) error {
	if o.relay == "" {
		return nil
	}
	limit, err := api.ParseBandwidth(o.relay)
	if err != nil {
		return startUsage("--relay-limit", "%v", err)
	}
	if limit < leastRelay {
		return startUsage("--relay-limit", "%s is too little to carry even heartbeats", o.relay).
			WithHint("give at least 64kbps, or --public no so that nobody is relayed")
	}
	c.RelayLimit = limit
	return nil
}

func (o *nodeStartOptions) parseBandwidth(c *NodeConfig) error {
	if o.egress == "" {
		return nil
	}
	bandwidth, err := api.ParseBandwidth(o.egress)
	if err != nil {
		return startUsage("--bandwidth", "%v", err)
	}
	if bandwidth == 0 {
		return startUsage("--bandwidth", "a node without bandwidth is of no use").WithHint("leave it out to have it measured")
	}
	c.Bandwidth = bandwidth
	return nil
}

func startUsage(flag, format string, args ...any) *api.Error {
	return api.Invalid(flag, format, args...).WithHint("see %q", "cloudless node start --help")
}

func runNodeStart(ctx context.Context, cfg NodeConfig, daemon func(context.Context, NodeConfig) error) error {
	if daemon == nil {
		return api.Errorf(api.KindUnsupported, "this platform cannot be a node").
			WithHint("nodes run on Linux; here, log in to a cluster with \"cloudless login\"")
	}
	err := daemon(ctx, cfg)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil // it was told to stop, and did
	}
	return err
}

// keyValues parses the values of a repeatable K=V flag.
func keyValues(flag string, texts []string) (map[string]string, error) {
	m := make(map[string]string, len(texts))
	for _, text := range texts {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return nil, api.Invalid(flag, "%q is not K=V", text).WithHint("write it like %s key=value", flag)
		}
		m[key] = value
	}
	return m, nil
}
