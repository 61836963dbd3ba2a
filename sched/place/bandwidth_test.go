package place

import (
	"testing"

	"github.com/cloudless-project/cloudless/api"
)

// Bandwidth is measured: it may be unknown, and less than was reserved before.
func TestBandwidth(t *testing.T) {
	asks := func(b api.Bandwidth) *api.WorkloadSpec {
		return &api.WorkloadSpec{Replicas: 1, Resources: api.ResourceSpec{CPU: 100, Memory: 64 << 20, Bandwidth: b}}
	}
	for name, tt := range map[string]struct {
		has, reserved, asked api.Bandwidth
		want                 bool
	}{
		"unknown, asks for none":        {0, 0, 0, true},
		"unknown, asks for some":        {0, 0, 5e6, true},
		"unknown, some is reserved":     {0, 50e6, 5e6, true},
		"enough":                        {20e6, 10e6, 10e6, true},
		"not enough":                    {20e6, 10e6, 11e6, false},
		"overbooked, asks for none":     {5e6, 10e6, 0, true},
		"overbooked, asks for a little": {5e6, 10e6, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			n := api.Node{ID: "a", State: api.NodeReady, Inventory: api.Inventory{
				Worker: true, Capacity: api.Resources{CPU: 4000, Memory: 8 << 30, Storage: 1 << 40, Bandwidth: tt.has},
			}}
			f := New([]api.Node{n}, nil, Options{})
			f.Reserve("other.0.1", "other", asks(tt.reserved), "a")
			v := f.Explain(Request{Workload: "web", Spec: asks(tt.asked)})[0]
			if v.Fits != tt.want {
				t.Errorf("fits is %v, want %v: %v", v.Fits, tt.want, v.Faults)
			}
			if !v.Fits && v.Faults[0] == "" {
				t.Error("it does not say why")
			}
		})
	}
}
