package host

import (
	"io/fs"

	"github.com/cloudless-project/cloudless/api"
)

// Power tells what the machine runs on now. One without a battery and without a
// supply that the kernel can see does not say.
func Power(root fs.FS) api.Power {
	var p api.Power
	plugged, battery := false, false
	for _, name := range names(root, "sys/class/power_supply") {
		dir := "sys/class/power_supply/" + name
		switch text(root, dir+"/type") {
		case "Mains", "USB":
			if online, _ := number(root, dir+"/online"); online > 0 {
				plugged = true
			}
		case "Battery":
			if text(root, dir+"/scope") == "Device" {
				continue // that of a mouse
			}
			battery = true
			if text(root, dir+"/status") != "Discharging" {
				plugged = plugged || text(root, dir+"/status") != ""
			}
			if percent, ok := number(root, dir+"/capacity"); ok {
				p.Percent = min(max(percent, 0), 100) / 10 * 10
			}
		}
	}
	switch {
	case plugged:
		p.Source = api.PowerMains
	case battery:
		p.Source = api.PowerBattery
	}
	return p
}
