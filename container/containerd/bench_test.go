//go:build linux

package containerd

import (
	"context"
	"testing"

	"github.com/cloudless-project/cloudless/container"
	"github.com/cloudless-project/cloudless/container/containertest"
)

// BenchmarkStart prints what a replica waits for: from nothing to running, and
// from crashed to running again. The image is unpacked.
func BenchmarkStart(b *testing.B) {
	bench := real.start(b)
	ctx := b.Context()
	spec := container.Spec{ID: "b.start", Image: bench.install(b), Command: containertest.Stubborn}
	remove := func() {
		if err := bench.rt.Remove(context.Background(), spec.ID); err != nil {
			b.Fatal(err)
		}
	}
	start := func() {
		if err := bench.rt.Create(ctx, spec); err != nil {
			b.Fatal(err)
		}
		if _, err := bench.rt.Start(ctx, spec.ID); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("fresh", func(b *testing.B) {
		for b.Loop() {
			start()
			b.StopTimer()
			remove()
			b.StartTimer()
		}
	})
	b.Run("again", func(b *testing.B) {
		start()
		defer remove()
		for b.Loop() {
			b.StopTimer()
			if err := bench.rt.Stop(ctx, spec.ID, 0); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			start()
		}
	})
}
