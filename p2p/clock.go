package p2p

import (
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
)

// clockSkew is by how much two clocks may differ before they are named as the
// likely reason of a refusal. Certificates tolerate as much.
const clockSkew = 10 * time.Minute

// complainEvery is how often the log tells of a wrong clock.
const complainEvery = 5 * time.Minute

// setClock is what to do about a clock that is wrong.
const setClock = "set the one that is wrong, for example with: timedatectl set-ntp true"

// skewNote says by how much this device's clock differs from another one, ""
// when that explains nothing. The other one is only what its owner says it is.
func skewNote(ours, theirs time.Time, whose string) string {
	if theirs.IsZero() {
		return ""
	}
	by, direction := theirs.Sub(ours), "behind"
	if by < 0 {
		by, direction = -by, "ahead of"
	}
	if by <= clockSkew {
		return ""
	}
	return fmt.Sprintf("this device's clock is %s %s %s (%s here, %s there): %s", roundly(by), direction, whose,
		ours.UTC().Format(time.RFC3339), theirs.UTC().Format(time.RFC3339), setClock)
}

// checkClock refuses a joiner whose clock is too far off for the certificate
// that it would get. What it returns is told to the joiner.
func checkClock(joiner, anchor time.Time) error {
	if note := skewNote(joiner, anchor, "the anchor's"); note != "" && !joiner.IsZero() {
		return api.Errorf(api.KindInvalid, "%s", note).
			WithHint("then start again with the same token: it was not used")
	}
	return nil
}

// roundly names a span as people do.
func roundly(d time.Duration) string {
	unit, name := time.Minute, "minute"
	switch {
	case d >= 48*time.Hour:
		unit, name = 24*time.Hour, "day"
	case d >= 2*time.Hour:
		unit, name = time.Hour, "hour"
	}
	n := int64((d + unit/2) / unit)
	if n != 1 {
		name += "s"
	}
	return fmt.Sprintf("%d %s", n, name)
}

// explainRefusal adds to a refusal, ours or theirs, that the clocks are the
// likely reason, and tells this device's owner now and then.
func (m *Mesh) explainRefusal(err error, theirs time.Time) error {
	note := skewNote(m.cfg.Now(), theirs, "the other one's")
	if err == nil || note == "" {
		return err
	}
	m.complain.Do(func() { m.log.Warn("a clock is wrong", zap.Error(err), zap.String("hint", note)) })
	return api.Errorf(api.KindDenied, "%w; %s", err, note)
}

// unixTime reads the time of a message; 0 is none.
func unixTime(seconds int64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0)
}
