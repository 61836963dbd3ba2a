package sim

import (
	"crypto/ed25519"
	"fmt"
	"io"
	"slices"
	"syscall"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub/pb"
	"google.golang.org/protobuf/proto"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/raftmeta/liveness"
)

// AnchorCPU measures, on this machine, what watching over a cluster costs an
// anchor: to decode and verify every heartbeat, to note it, and to judge all
// nodes again and again. What the transport itself costs is not in it. Unlike the
// rest of a simulation it depends on the machine.
func AnchorCPU(out io.Writer, nodes int) []Figure {
	every := liveness.HeartbeatInterval(nodes)
	d := liveness.New(liveness.Config{})
	list := make([]api.Node, nodes)
	for i := range list {
		list[i] = sampleNode(i)
		d.Heard(list[i].ID, true, epoch)
	}
	now := epoch.Add(every / 2)
	d.Step(list, list[0].ID, now) // it knows the size of the cluster now
	beat := perCall(2000, heartbeatWork(d, list, now))
	d.Heard(list[1].ID, true, epoch.Add(-every)) // one in doubt: in a large cluster somebody always is
	judgement := perCall(20, func(int) { d.Step(slices.Clone(list), list[0].ID, now) })
	beats := float64(nodes) / every.Seconds()
	judgements := 1 / d.Pace().Seconds()
	cores := beats*beat.Seconds() + judgements*judgement.Seconds()
	fmt.Fprintf(out, "\nAn anchor of %d nodes: %.0f heartbeats a second of %s, %.0f judgements of %s: %.3f of a core\n",
		nodes, beats, beat.Round(100*time.Nanosecond), judgements, judgement.Round(10*time.Microsecond), cores)
	return []Figure{{Name: fmt.Sprintf("anchor_cpu_%s_cores", label(nodes)), Value: cores, Unit: "cores"}}
}

// heartbeatWork is what is done with one heartbeat, that of node i.
func heartbeatWork(d *liveness.Detector, list []api.Node, now time.Time) func(i int) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	topic := api.TopicHeartbeat
	signed := make([]byte, 120) // the message without its signature
	data, err := proto.Marshal(&pubsub.RPC{Publish: []*pubsub.Message{{
		From: make([]byte, 38), Data: make([]byte, 8), Seqno: make([]byte, 8), Topic: &topic, Signature: ed25519.Sign(key, signed),
	}}})
	if err != nil {
		panic(err) // a message of constant content
	}
	public := key.Public().(ed25519.PublicKey)
	return func(i int) {
		var rpc pubsub.RPC
		if proto.Unmarshal(data, &rpc) == nil && ed25519.Verify(public, signed, rpc.Publish[0].Signature) {
			d.Heard(list[i%len(list)].ID, true, now)
		}
	}
}

// perCall is what one call of f takes of a processor: other work on the machine
// does not count.
func perCall(calls int, f func(i int)) time.Duration {
	begun := cpuTime()
	for i := range calls {
		f(i)
	}
	return (cpuTime() - begun) / time.Duration(calls)
}

// cpuTime is what this process has used so far.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // it fails for a bad argument only
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
