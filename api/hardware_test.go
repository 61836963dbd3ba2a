package api

import "testing"

func TestHardwareAnswersForLabels(t *testing.T) {
	n := Node{Inventory: Inventory{
		StorageClass: StorageNVMe, GPUs: []GPU{{Vendor: "NVIDIA"}, {Vendor: "Intel"}}, Power: Power{Source: PowerBattery, Percent: 40},
	}}
	for key, want := range map[string]string{"storage": "nvme", "gpu": "nvidia", "power": "battery"} {
		if got, ok := n.Label(key); !ok || got != want {
			t.Errorf("%s is %q, %v, want %q", key, got, ok, want)
		}
	}
	n.Inventory.Labels = map[string]string{"gpu": "broken"}
	n.Labels = map[string]string{"storage": "fast"}
	for key, want := range map[string]string{"storage": "fast", "gpu": "broken"} {
		if got, _ := n.Label(key); got != want {
			t.Errorf("%s is %q, want what was set, %q", key, got, want)
		}
	}
	n = Node{Inventory: Inventory{StorageClass: StorageUnknown}}
	for _, key := range []string{"storage", "gpu", "power", "rack"} {
		if got, ok := n.Label(key); ok {
			t.Errorf("%s is %q on a node that knows nothing", key, got)
		}
	}
}
