package p2p

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

func TestSkewNote(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		theirs time.Time
		want   string
	}{
		{time.Time{}, ""},
		{now.Add(clockSkew), ""},
		{now.Add(-clockSkew), ""},
		{now.Add(11 * time.Minute), "this device's clock is 11 minutes behind the other's (2026-03-01T12:00:00Z here, 2026-03-01T12:11:00Z there)"},
		{now.Add(-3 * time.Hour), "is 3 hours ahead of the other's"},
		{now.Add(3*24*time.Hour + time.Hour), "is 3 days behind the other's"},
		{now.Add(-20 * 365 * 24 * time.Hour), "is 7300 days ahead of the other's"},
	} {
		got := skewNote(now, c.theirs, "the other's")
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("there it is %v: %q, want %q", c.theirs, got, c.want)
		}
		if got != "" && !strings.Contains(got, "timedatectl") {
			t.Errorf("%q does not say what to do", got)
		}
	}
}

// A refusal tells both sides when their clocks may be the reason.
func TestRefusalNamesTheClocks(t *testing.T) {
	a := newAuthority(t)
	right := a.start(t, public)
	key, id := newKey(t)
	wrong := a.start(t, func(c *Config) {
		c.Key = key
		c.Now = func() time.Time { return time.Now().Add(-3 * 24 * time.Hour) }
		c.Contacts = []Contact{right.contact()}
		// It ended an hour ago by everybody else's clock.
		c.Admission.(*admission).set(a.issue(api.Member{ID: id, Roles: []api.Role{api.RoleNode}, NotAfter: time.Now().Add(-time.Hour)}))
	})
	_, err := wrong.Dial(testContext(t), right.ID(), api.ProtoAPI)
	if err == nil || !strings.Contains(err.Error(), "expired") || !strings.Contains(err.Error(), "this device's clock is 3 days behind the other one's") {
		t.Errorf("the one that was refused learns: %v", err)
	}
	eventually(t, "the one that refuses to know why, too", func() bool {
		right.Mesh.adm.mu.Lock()
		defer right.Mesh.adm.mu.Unlock()
		for _, f := range right.Mesh.adm.failed {
			if strings.Contains(f.err.Error(), "this device's clock is 3 days ahead of the other one's") {
				return true
			}
		}
		return false
	})
}

func TestEnrolmentNamesAWrongClock(t *testing.T) {
	a := newAuthority(t)
	anchor := a.start(t, public)
	redeemed := 0
	anchor.ServeEnrol(nil, func(context.Context, EnrolRequest) (EnrolReply, error) {
		redeemed++
		return EnrolReply{ClusterName: "home"}, nil
	})
	key, _ := newKey(t)
	enrol := func(off time.Duration) error {
		_, err := Enrol(testContext(t), EnrolConfig{Key: key, Anchors: dialable(anchor), Request: EnrolRequest{Time: time.Now().Add(off).Unix()}})
		return err
	}
	for off, want := range map[time.Duration]string{
		-3 * 24 * time.Hour:  "this device's clock is 3 days behind the anchor's",
		400 * 24 * time.Hour: "this device's clock is 400 days ahead of the anchor's",
	} {
		err := enrol(off)
		e := asError(err)
		if e == nil || e.Kind != api.KindInvalid || !strings.Contains(e.Message, want) || !strings.Contains(e.Hint, "same token") {
			t.Errorf("%v off: %v", off, err)
		}
	}
	if redeemed > 0 {
		t.Error("the token was looked at although the certificate would have been no use")
	}
	for _, off := range []time.Duration{-9 * time.Minute, 9 * time.Minute} {
		if err := enrol(off); err != nil {
			t.Errorf("%v off: %v", off, err)
		}
	}
}
