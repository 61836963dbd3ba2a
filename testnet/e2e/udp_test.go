//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/cloudless-project/cloudless/testnet"
)

// TestDatagramsReachAService: datagrams go to a service by its name, from a
// device in the same home and from one that can only be relayed, and answers
// come back (CLD-REQ-040, 041).
func TestDatagramsReachAService(t *testing.T) {
	ctx := t.Context()
	lab := newCluster(t, "pi", "nas", "desk")
	pi := lab.Device("pi")
	image := filepath.Join(lab.Dir, "iperf.tar")
	must(t, testnet.WriteIperfImage(ctx, image))
	cloudless(t, pi, "image", "import", image)
	must(t, pi.Apply(ctx, fmt.Sprintf(`apiVersion: cloudless/v1
kind: Workload
metadata: {name: iperf}
spec:
  image: %s
  resources: {cpu: 50m, memory: 64Mi, limits: {cpu: 2000m, memory: 256Mi}}
  placement:
    affinity: [{key: name, operator: In, values: [pi], required: true}]
  ports: [{port: 5201}, {port: 5201, protocol: udp}]
  security: {readOnlyRootfs: false}
`, testnet.IperfImage)))
	_, err := pi.AwaitReplicas(ctx, patient, "iperf", 1)
	must(t, err)

	for _, tt := range []struct {
		name, from string
		flags      []string
	}{
		{"from the same home", "nas", nil},
		{"to the same home", "nas", []string{"-R"}},
		{"by relay", "desk", nil},
		{"back by relay", "desk", []string{"-R"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			await(t, "datagrams to arrive", func(ctx context.Context) error {
				f, err := datagrams(ctx, lab.Device(tt.from), tt.flags...)
				t.Logf("%d datagrams were sent, %d got lost", f.Packets, f.Lost)
				if err == nil && (f.Packets == 0 || f.Lost > f.Packets/2) { // of a busy machine, too many may
					err = fmt.Errorf("of %d datagrams %d got lost", f.Packets, f.Lost)
				}
				return err
			})
		})
	}
}

// flow is what iperf3 says of a flow of datagrams.
type flow struct {
	Packets int `json:"packets"`
	Lost    int `json:"lost_packets"`
}

// datagrams sends little, for a second, through the service.
func datagrams(ctx context.Context, d *testnet.Device, flags ...string) (flow, error) {
	out, err := d.Output(ctx, append([]string{"iperf3", "-J", "-u", "-c", "iperf.cloudless.internal", "-b", "2M", "-l", "1000", "-t", "1"}, flags...)...)
	if err != nil {
		return flow{}, err
	}
	var result struct {
		Error string `json:"error"`
		End   struct {
			Sum flow `json:"sum"`
		} `json:"end"`
	}
	if err := json.Unmarshal([]byte(out), &result); err != nil {
		return flow{}, fmt.Errorf("read iperf3: %w", err)
	}
	if result.Error != "" {
		return flow{}, errors.New(result.Error)
	}
	return result.End.Sum, nil
}
