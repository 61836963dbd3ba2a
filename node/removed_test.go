package node

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
)

func TestRemovedNodeKnowsIt(t *testing.T) {
	first := newDevice(t, "pi")
	first.start(func(c *Config) { c.Init = true })
	second := newDevice(t, "pi")
	join := first.token(api.RoleNode)
	second.start(func(c *Config) { c.Join = join })
	c := second.client()
	defer c.Close()
	st, err := c.Status(t.Context())
	if err != nil || st.Name != "pi-2" {
		t.Fatalf("the second pi is %q, %v", st.Name, err)
	}
	op := first.client()
	defer op.Close()
	if err := op.RemoveNode(t.Context(), "pi-2", ""); err != nil {
		t.Fatal(err)
	}
	second.eventually("its calls say that it was removed", func(ctx context.Context) error {
		_, err := c.Nodes(ctx)
		var e *api.Error
		if !errors.As(err, &e) || e.Kind != api.KindDenied || e.Message != errRemoved.Message || e.Hint == "" {
			return fmt.Errorf("got %v", err)
		}
		return nil
	})
	second.shutdown()
	cfg := second.cfg
	cfg.Join = first.token(api.RoleNode)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := Run(ctx, cfg, zap.NewNop()); !errors.As(err, new(*api.Error)) || err.Error() != errRemoved.Error() {
		t.Errorf("joining again with the dead identity: %v", err)
	}
}
