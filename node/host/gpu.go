package host

import (
	"cmp"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/cloudless-project/cloudless/api"
)

// maxGPUs bounds what one node reports.
const maxGPUs = 32

// gpuVendors are the makers of graphics processors, by their PCI number. The
// frame buffers of virtual machines and of servers' management chips draw a
// console and compute nothing: whose maker is not here is no GPU.
var gpuVendors = map[string]string{
	"0x10de": "NVIDIA",
	"0x1002": "AMD",
	"0x8086": "Intel",
}

// socDrivers are the drivers of graphics processors that are part of a board's
// chip and on no PCI bus.
var socDrivers = map[string]string{
	"v3d": "Broadcom", "vc4-drm": "Broadcom", "vc4": "Broadcom", "panfrost": "ARM", "panthor": "ARM", "lima": "ARM",
	"msm": "Qualcomm", "msm_dpu": "Qualcomm", "etnaviv": "Vivante", "tegra": "NVIDIA", "nvgpu": "NVIDIA", "asahi": "Apple", "powervr": "Imagination",
}

// GPUs lists the graphics processors that the kernel knows: those on the PCI
// bus, with or without a driver, and those of boards.
func GPUs(root fs.FS) []api.GPU {
	var out []api.GPU
	for _, address := range names(root, "sys/bus/pci/devices") {
		dir := "sys/bus/pci/devices/" + address
		vendor := gpuVendors[text(root, dir+"/vendor")]
		if vendor == "" || !strings.HasPrefix(text(root, dir+"/class"), "0x03") {
			continue
		}
		device := settings(root, dir+"/uevent")
		out = append(out, api.GPU{
			Vendor: vendor, Driver: device["DRIVER"],
			Model: cmp.Or(nvidiaModel(root, address), text(root, dir+"/product_name"), pciID(device)),
		})
	}
	out = append(out, boardGPUs(root)...)
	return out[:min(len(out), maxGPUs)]
}

// nvidiaModel asks NVIDIA's own driver, which knows the name of the card.
func nvidiaModel(root fs.FS, address string) string {
	for line := range strings.Lines(text(root, "proc/driver/nvidia/gpus/"+address+"/information")) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "Model" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// pciID is the pair of numbers by which a card is found on the internet.
func pciID(device map[string]string) string {
	if id := device["PCI_ID"]; id != "" {
		return "PCI " + strings.ToLower(id)
	}
	return ""
}

func boardGPUs(root fs.FS) []api.GPU {
	var out []api.GPU
	for _, card := range names(root, "sys/class/drm") {
		if !strings.HasPrefix(card, "card") || strings.Contains(card, "-") {
			continue // a connector, or the same GPU once more
		}
		device := settings(root, "sys/class/drm/"+card+"/device/uevent")
		vendor := socDrivers[device["DRIVER"]]
		if vendor == "" || device["PCI_ID"] != "" {
			continue
		}
		if slices.ContainsFunc(out, func(g api.GPU) bool { return g.Vendor == vendor }) {
			continue // a chip has one; drawing and showing are two devices of it
		}
		out = append(out, api.GPU{Vendor: vendor, Driver: device["DRIVER"], Model: boardModel(device)})
	}
	return out
}

// boardModel is what the device tree calls the GPU: "brcm,bcm2711-v3d".
func boardModel(device map[string]string) string {
	_, model, _ := strings.Cut(device["OF_COMPATIBLE_0"], ",")
	return cmp.Or(model, path.Base(device["OF_COMPATIBLE_0"]))
}
