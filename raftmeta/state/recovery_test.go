package state

import (
	"bytes"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

func TestSetRecoveryKey(t *testing.T) {
	s := New()
	index := uint64(0)
	apply := func(c Command) error {
		index++
		return s.Apply(index, []Command{c}).Err
	}
	key := func(b byte) []byte { return bytes.Repeat([]byte{b}, recoveryKeySize) }
	now := time.Unix(9, 0).UTC()
	if err := apply(SetRecoveryKey{Public: key(1), Now: now}); api.KindOf(err) != api.KindNotFound {
		t.Errorf("without a cluster: %v", err)
	}
	if err := apply(CreateCluster{api.Cluster{ID: "c1", Name: "home", CreatedAt: now}}); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		what string
		cmd  SetRecoveryKey
		kind api.Kind
		want byte
	}{
		{"the first", SetRecoveryKey{Public: key(1)}, "", 1},
		{"the same again", SetRecoveryKey{Public: key(1)}, "", 1},
		{"another one by mistake", SetRecoveryKey{Public: key(2)}, api.KindExists, 1},
		{"another one on purpose", SetRecoveryKey{Public: key(2), Replace: true}, "", 2},
		{"none", SetRecoveryKey{Replace: true}, api.KindInvalid, 2},
	} {
		step.cmd.Now = now
		if err := apply(step.cmd); api.KindOf(err) != step.kind {
			t.Errorf("%s: %v", step.what, err)
		}
		if c, _ := s.View().Cluster(); !bytes.Equal(c.RecoveryKey, key(step.want)) {
			t.Errorf("%s: it is %x", step.what, c.RecoveryKey)
		}
	}
}
