package sim

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/cloudless-project/cloudless/raftmeta/liveness"
)

// Figure is one line of what a run measured. Baseline is the yardstick's value,
// ratio ours by its.
type Figure struct {
	Name     string   `json:"name"`
	Value    float64  `json:"value"`
	Unit     string   `json:"unit"`
	Baseline *float64 `json:"baseline"`
	Ratio    *float64 `json:"ratio"`
}

// Size says how much is simulated.
type Size struct {
	Clusters []int         // nodes, for convergence
	Rounds   int           // of join, leave and death in each cluster
	Pausing  int           // nodes of the cluster with losses and pauses
	For      time.Duration // how long that one runs
	Rapid    int           // nodes of the cluster with faults
}

// Full is what the figures of the documentation come from.
func Full() Size {
	return Size{Clusters: []int{1000, 5000}, Rounds: 40, Pausing: 201, For: 5 * time.Hour, Rapid: 1000}
}

// churn is how often a node's state changes: a device that is switched on and
// off once a day is ready, suspect and down.
const churn = 3.0 / (24 * 3600)

const anchors = 3 // that everybody sends heartbeats to

// report collects figures and prints them for people.
type report struct {
	out     io.Writer
	figures []Figure
	seed    uint64
}

// Run simulates everything, prints tables, and returns the figures.
func Run(out io.Writer, size Size, seed uint64) []Figure {
	r := &report{out: out, seed: seed}
	r.say("seed %d\n", seed)
	r.convergence(size)
	r.bytes(size)
	r.cuts(size)
	r.falseDeaths(size)
	r.rapid(size)
	return r.figures
}

// WriteFigures writes one JSON line per figure.
func WriteFigures(w io.Writer, figures []Figure) error {
	enc := json.NewEncoder(w)
	for _, f := range figures {
		if err := enc.Encode(f); err != nil {
			return err
		}
	}
	return nil
}

func (r *report) say(format string, args ...any) { fmt.Fprintf(r.out, format, args...) }

func (r *report) figure(name string, value float64, unit string) {
	r.figures = append(r.figures, Figure{Name: name, Value: value, Unit: unit})
}

func (r *report) against(name string, value, baseline float64, unit string) {
	ratio := value / baseline
	r.figures = append(r.figures, Figure{name, value, unit, &baseline, &ratio})
}

// label names a cluster of that size in figures.
func label(n int) string {
	if n%1000 == 0 {
		return fmt.Sprintf("%dk", n/1000)
	}
	return fmt.Sprint(n)
}

func (r *report) convergence(size Size) {
	const loss = 0.01
	r.say("\nUntil 99 %% of the members know, seconds, P50 / P95 (%d of each, 1 %% loss)\n", size.Rounds)
	r.say("%-8s %-34s %-15s %-15s %-15s %s\n", "nodes", "", "join", "leave", "death", "all")
	for _, n := range size.Clusters {
		swim := convergeSWIM(n, size.Rounds, loss, r.seed)
		// Whole views keep an anchor busy for minutes in a large cluster: few rounds do.
		full := converge(n, max(1, min(size.Rounds, 10_000/n)/2), fullView(n), loss, r.seed)
		changed := converge(n, size.Rounds, delta(n), loss, r.seed)
		for _, row := range []struct {
			what, name string
			c          convergence
		}{
			{"Cloudless", "conv_%s_%s_s", changed},
			{"… if it always sent whole views", "conv_%s_whole_%s_s", full},
			{"SWIM, memberlist's LAN defaults", "memberlist_conv_%s_%s_s", swim},
		} {
			r.say("%-8d %-34.34s %-15s %-15s %-15s %s\n", n, row.what,
				pair(row.c.join), pair(row.c.leave), pair(row.c.death), pair(row.c.all()))
			for _, p := range []int{50, 95} {
				name := fmt.Sprintf(row.name, label(n), fmt.Sprintf("p%d", p))
				at := float64(p) / 100
				if value := row.c.all().at(at).Seconds(); row.c.changes > 0 {
					r.against(name, value, swim.all().at(at).Seconds(), "s")
				} else {
					r.figure(name, value, "s")
				}
			}
			if row.c.changes > 0 {
				r.against(fmt.Sprintf(row.name, label(n), "death_p50"), row.c.death.at(.5).Seconds(), swim.death.at(.5).Seconds(), "s")
			}
		}
	}
}

func pair(t times) string { return fmt.Sprintf("%.2f / %.2f", t.at(.5).Seconds(), t.at(.95).Seconds()) }

func (r *report) bytes(size Size) {
	r.say("\nBytes per second and node, heartbeats of %d bytes to %d anchors, each node coming and going once a day\n", heartbeatBytes(), anchors)
	r.say("%-8s %-12s %-12s %-22s %s\n", "nodes", "spacing", "heartbeats", "+ changes (each)", "+ whole views (each)")
	for _, n := range size.Clusters {
		every := liveness.HeartbeatInterval(n)
		beats := float64(anchors*heartbeatBytes()) / every.Seconds()
		full, small := fullView(n), delta(n)
		changes := churn * float64(n)
		r.say("%-8d %-12s %-12.0f %-22s %s\n", n, every, beats,
			fmt.Sprintf("%.0f (%d B)", beats+changes*float64(small.bytes), small.bytes),
			fmt.Sprintf("%.0f (%d kB)", beats+changes*float64(full.bytes), full.bytes/1000))
		r.figure(fmt.Sprintf("gossip_%s_bytes_per_s", label(n)), beats+changes*float64(small.bytes), "B/s")
		if n == size.Clusters[0] {
			r.figure("gossip_bytes_per_s", beats+changes*float64(small.bytes), "B/s")
		}
	}
}

func (r *report) cuts(size Size) {
	const nodes = 9
	r.say("\nFrom a power cut to the verdict among %d nodes, seconds (%d cuts)\n", nodes, 10*size.Rounds)
	r.say("%-7s %-7s %-7s %s\n", "loss", "P50", "P95", "most")
	for _, loss := range []float64{0, .001, .01, .1} {
		t := cuts(nodes, 10*size.Rounds, loss, r.seed)
		r.say("%-7s %-7.2f %-7.2f %.2f\n", fmt.Sprintf("%.1f %%", 100*loss), t.at(.5).Seconds(), t.at(.95).Seconds(), t.at(1).Seconds())
		if loss == 0 {
			r.figure("sim_down_p50_s", t.at(.5).Seconds(), "s")
			r.figure("sim_down_p95_s", t.at(.95).Seconds(), "s")
		}
	}
}

func (r *report) falseDeaths(size Size) {
	r.say("\nLiving devices that were declared down, per 1,000 node-hours (pauses of %s)\n", pauseTakes)
	r.say("%-44s %-7s %10s %8s %8s %8s %8s %s\n", "who pauses", "loss", "node-hours", "pauses", "suspect", "cut off", "down", "down / 1,000 h")
	worst := 0.0
	for _, row := range []struct {
		what string
		name string
		kind pauses
		loss float64
		d    time.Duration
	}{
		{"the path between a device and the anchor", "", ofPaths, .1, size.For},
		{"the uplink of a house", "", ofHouses, .1, size.For},
		{"the daemon of a device", "", ofDaemons, .1, size.For},
		{"a device as a whole", "", ofHosts, .1, size.For},
		{"the path between a device and the anchor", "false_down_quiet_path_per_1000h", ofPaths, 0, size.For / 5},
		{"the uplink of a house", "false_down_quiet_house_per_1000h", ofHouses, 0, size.For / 5},
		{"the daemon of a device", "false_down_quiet_daemon_per_1000h", ofDaemons, 0, size.For / 5},
		{"a device as a whole", "false_down_quiet_device_per_1000h", ofHosts, 0, size.For / 5},
	} {
		v := falseDeaths(size.Pausing, row.d, row.loss, row.kind, liveness.Config{}, r.seed)
		rate := float64(v.down) / v.hours * 1000
		r.say("%-44s %-7s %10.0f %8d %8d %8d %8d %.1f\n", row.what, fmt.Sprintf("%.0f %%", 100*row.loss), v.hours, v.pauses, v.suspect, v.cutOff, v.down, rate)
		if row.name != "" {
			r.figure(row.name, rate, "1/1000h")
			continue
		}
		worst = max(worst, rate)
	}
	r.figure("false_down_per_1000h", worst, "1/1000h")
}

func (r *report) rapid(size Size) {
	r.say("\nFaults of 1 %% of %d devices, 2 minutes (healthy: others declared down or cut off)\n", size.Rapid)
	r.say("%-36s %7s %7s %7s %8s %8s %8s %s\n", "", "faulty", "out", "down", "healthy", "changes", "again", "out of service after")
	for i, t := range rapid(size.Rapid, r.seed) {
		r.say("%-36s %7d %7d %7d %8d %8d %8d %s … %s\n", t.name, t.faulty, t.out, t.down, t.healthy, t.changes, t.flaps, t.first, t.last)
		if name := [...]string{crash: "view_changes", flipFlop: "view_changes_flip_flop", lossy: "view_changes_lossy"}[i]; name != "" {
			r.figure(name, float64(t.changes), "changes")
		}
	}
}
