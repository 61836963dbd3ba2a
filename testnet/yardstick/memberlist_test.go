package yardstick

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
)

var (
	members = flag.Int("members", 100, "of the cluster")
	rounds  = flag.Int("rounds", 3, "of a join, a leave and a death")
	loss    = flag.Float64("loss", 0.01, "share of packets lost")
	seed    = flag.Uint64("seed", 1, "of the links; the library draws for itself")
	out     = flag.String("out", "", "append the figures to this file")
)

// patience is when a measurement is given up.
const patience = 10 * time.Minute

// cluster is memberlist's, all of it in this process.
type cluster struct {
	t     *testing.T
	links *links
	lists []*memberlist.Memberlist
	ports []*port

	mu      sync.Mutex
	subject string          // whose news is awaited
	heard   map[string]bool // who knows it
	enough  int
	done    chan struct{}
}

// ears notes what one member learns.
type ears struct {
	c    *cluster
	name string
}

func (e ears) NotifyJoin(n *memberlist.Node)  { e.c.news(e.name, n.Name) }
func (e ears) NotifyLeave(n *memberlist.Node) { e.c.news(e.name, n.Name) }
func (e ears) NotifyUpdate(*memberlist.Node)  {}

func (c *cluster) news(who, of string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if of != c.subject || who == of || c.heard[who] {
		return
	}
	c.heard[who] = true
	if len(c.heard) == c.enough {
		close(c.done)
	}
}

func name(i int) string { return fmt.Sprintf("m%d", i) }

// start adds a member that knows nobody yet.
func (c *cluster) start() int {
	i := len(c.lists)
	p := c.links.add(i + 1)
	cfg := memberlist.DefaultLANConfig()
	cfg.Name, cfg.Transport, cfg.Events, cfg.LogOutput = name(i), p, ears{c, name(i)}, io.Discard
	cfg.BindAddr, cfg.BindPort = p.addr.IP.String(), p.addr.Port
	cfg.EnableCompression = false // costs time of ours, none of the clock's
	list, err := memberlist.Create(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	c.lists, c.ports = append(c.lists, list), append(c.ports, p)
	return i
}

func (c *cluster) join(i, via int) {
	if _, err := c.lists[i].Join([]string{c.ports[via].addr.String()}); err != nil {
		c.t.Fatal(err)
	}
}

// learn has something happen to a member and returns when 99 % of the others
// know of it.
func (c *cluster) learn(i int, happen func()) time.Duration {
	c.mu.Lock()
	others := len(c.lists) - 1
	c.subject, c.heard, c.done, c.enough = name(i), make(map[string]bool), make(chan struct{}), others-others/100
	c.mu.Unlock()
	begun := time.Now()
	happen()
	select {
	case <-c.done:
	case <-time.After(patience):
		c.t.Errorf("%d of %d members heard of %s within %s", len(c.heard), c.enough, name(i), patience)
	}
	took := time.Since(begun)
	time.Sleep(5 * time.Second)
	return took
}

// drop forgets a member that is gone: the last one.
func (c *cluster) drop() {
	last := len(c.lists) - 1
	_ = c.lists[last].Shutdown()
	c.lists, c.ports = c.lists[:last], c.ports[:last]
}

func TestMemberlist(t *testing.T) {
	begun := time.Now()
	samples := map[string][]time.Duration{}
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{t: t, links: &links{rand: rand.New(rand.NewPCG(*seed, 1)), loss: *loss, ports: map[string]*port{}}}
		for i := range *members {
			if c.start(); i > 0 {
				c.join(i, c.links.rand.IntN(i))
			}
		}
		time.Sleep(30 * time.Second)
		for range *rounds {
			i := c.start()
			samples["join"] = append(samples["join"], c.learn(i, func() { c.join(i, c.links.rand.IntN(i)) }))
			samples["leave"] = append(samples["leave"], c.learn(i, func() { go c.lists[i].Leave(time.Second) }))
			c.drop()
			i = c.start()
			c.learn(i, func() { c.join(i, c.links.rand.IntN(i)) })
			samples["death"] = append(samples["death"], c.learn(i, c.ports[i].kill))
			c.drop()
		}
		for range c.lists {
			c.drop()
		}
		time.Sleep(time.Minute) // what still waits for an answer gives up
	})
	report(t, samples, time.Since(begun))
}

// figure is a line of build/bench.jsonl.
type figure struct {
	Name     string   `json:"name"`
	Value    float64  `json:"value"`
	Unit     string   `json:"unit"`
	Baseline *float64 `json:"baseline"`
	Ratio    *float64 `json:"ratio"`
}

func at(d []time.Duration, p float64) float64 {
	s := slices.Sorted(slices.Values(d))
	return s[min(len(s)-1, int(p*float64(len(s))))].Seconds()
}

func report(t *testing.T, samples map[string][]time.Duration, took time.Duration) {
	all := slices.Concat(samples["join"], samples["leave"], samples["death"])
	fmt.Printf("memberlist v0.7.0 itself, %d members, %.0f %% loss: seconds until 99 %% know, P50 / P95 (%d of each; took %s)\n",
		*members, 100**loss, *rounds, took.Round(time.Second))
	for _, kind := range []string{"join", "leave", "death"} {
		fmt.Printf("%-6s %.2f / %.2f\n", kind, at(samples[kind], .5), at(samples[kind], .95))
	}
	fmt.Printf("%-6s %.2f / %.2f\n", "all", at(all, .5), at(all, .95))
	if *out == "" {
		return
	}
	f, err := os.OpenFile(*out, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	label := fmt.Sprint(*members)
	if *members%1000 == 0 {
		label = fmt.Sprintf("%dk", *members/1000)
	}
	enc := json.NewEncoder(f)
	for name, value := range map[string]float64{
		"p50_s": at(all, .5), "p95_s": at(all, .95), "death_p50_s": at(samples["death"], .5),
	} {
		if err := enc.Encode(figure{Name: "memberlist_real_conv_" + label + "_" + name, Value: value, Unit: "s"}); err != nil {
			t.Fatal(err)
		}
	}
}
