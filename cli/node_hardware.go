package cli

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/cloudless-project/cloudless/api"
)

// What a person reads of a node's hardware and addresses; "" where there is
// nothing to say.

func cgroupText(version string) string {
	if version == "" {
		return ""
	}
	return "cgroup " + version
}

func diskText(i api.Inventory) string {
	if i.StorageClass == api.StorageUnknown {
		return ""
	}
	return string(i.StorageClass)
}

func gpuName(g api.GPU) string {
	model := strings.TrimSpace(strings.TrimPrefix(g.Model, g.Vendor))
	name := strings.TrimSpace(g.Vendor + " " + model)
	if g.Driver != "" {
		name += " (" + g.Driver + ")"
	}
	return name
}

// gpuText is short enough for a table: the makers, with how many there are.
func gpuText(all []api.GPU) string {
	var makers []string
	count := map[string]int{}
	for _, g := range all {
		if count[g.Vendor]++; count[g.Vendor] == 1 {
			makers = append(makers, g.Vendor)
		}
	}
	for i, maker := range makers {
		if count[maker] > 1 {
			makers[i] = fmt.Sprintf("%d×%s", count[maker], maker)
		}
	}
	return strings.Join(makers, ",")
}

func powerText(p api.Power) string {
	if p.Percent == 0 || p.Source == "" {
		return string(p.Source)
	}
	return fmt.Sprintf("%s, %d%%", p.Source, p.Percent)
}

func uplinkText(i api.Inventory) string {
	if i.Capacity.Bandwidth == 0 {
		return "not measured yet"
	}
	how := cmp.Or(map[api.BandwidthSource]string{
		api.BandwidthOperator: "as it was told", api.BandwidthMeasured: "measured",
	}[i.BandwidthSource], "as it says")
	return fmt.Sprintf("%s, %s", i.Capacity.Bandwidth, how)
}

// addressesText leaves out those through relays: they are long, and the node's
// own are what a person looks for.
func addressesText(all []string) string {
	var own []string
	relays := 0
	for _, a := range all {
		if strings.Contains(a, "/p2p-circuit") {
			relays++
		} else {
			own = append(own, a)
		}
	}
	if relays > 0 {
		own = append(own, fmt.Sprintf("%d through relays", relays))
	}
	return strings.Join(own, ", ")
}
