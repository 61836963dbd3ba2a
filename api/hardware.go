package api

import "strings"

// StorageClass is the kind of disk that holds a node's data.
type StorageClass string

// The classes of storage.
const (
	StorageNVMe    StorageClass = "nvme"
	StorageSSD     StorageClass = "ssd"
	StorageHDD     StorageClass = "hdd"
	StorageEMMC    StorageClass = "emmc-sd" // soldered or a card: slow to write, and it wears out
	StorageUnknown StorageClass = "unknown" // of a virtual disk, a network or an overlay
)

// GPU is a graphics processor that a node has.
type GPU struct {
	Vendor string `json:"vendor"`
	Model  string `json:"model,omitempty"`
	Driver string `json:"driver,omitempty"`
}

// PowerSource is what a device runs on.
type PowerSource string

// The sources of power. A device that does not say has neither.
const (
	PowerMains   PowerSource = "mains"
	PowerBattery PowerSource = "battery"
)

// Power is what a node runs on now.
type Power struct {
	Source  PowerSource `json:"source,omitempty"`
	Percent int         `json:"percent,omitempty"` // of charge, in steps of ten; 0 without a battery
}

// BandwidthSource is how a node knows its bandwidth.
type BandwidthSource string

// The sources of a bandwidth. One that is unknown has none.
const (
	BandwidthMeasured BandwidthSource = "measured"
	BandwidthOperator BandwidthSource = "operator" // node start --bandwidth
)

// hardware answers for labels that nobody has set: the class of the storage,
// the maker of the first GPU, and what the node runs on.
func (i *Inventory) hardware(key string) (string, bool) {
	switch key {
	case "storage":
		return string(i.StorageClass), i.StorageClass != "" && i.StorageClass != StorageUnknown
	case "gpu":
		if len(i.GPUs) > 0 {
			return strings.ToLower(i.GPUs[0].Vendor), true
		}
	case "power":
		return string(i.Power.Source), i.Power.Source != ""
	}
	return "", false
}
