package node

import (
	"context"
	"time"

	"go.uber.org/zap"

	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
	"github.com/cloudless-project/cloudless/internal/retry"
	"github.com/cloudless-project/cloudless/security/identity"
)

const (
	// lookAtClock is also the least time between two renewals: a device whose
	// clock is far ahead takes every certificate for an old one.
	lookAtClock = time.Minute

	// The pauses between attempts to renew. The longest one is also how long a
	// node whose certificate has ended may stay idle when an anchor is back.
	renewPause    = 2 * time.Second
	renewPauseMax = time.Minute
	renewTimeout  = 30 * time.Second
)

// renewer gets a new certificate well before the old one ends, again and again.
// Nothing restarts: the mesh presents the new one from then on.
type renewer struct {
	due   func() (at time.Time, sooner <-chan struct{}) // the certificate is to be renewed
	renew func(context.Context) error
	log   *zap.Logger
}

func (r *renewer) run(ctx context.Context) error {
	backoff := retry.Backoff{Initial: renewPause, Max: renewPauseMax}
	wait := time.Second
	for {
		_, sooner := r.due()
		if !pause(ctx, wait, sooner) {
			return nil
		}
		// A timer stands still while the device sleeps, and the clock may be set:
		// look again soon instead of waiting for the moment itself.
		at, _ := r.due()
		if left := time.Until(at); left > 0 {
			wait = min(left, lookAtClock)
			continue
		}
		err := r.renew(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			backoff.Reset()
			wait = lookAtClock
			next, _ := r.due()
			r.log.Info("renewed the membership certificate", zap.Time("next", next))
		default:
			wait = backoff.Next()
			r.log.Warn("renewing the membership certificate failed", zap.Error(err), zap.Duration("retry_in", wait))
		}
	}
}

// pause waits, less long when something happens sooner. It returns false when
// ctx ends.
func pause(ctx context.Context, d time.Duration, sooner <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-sooner:
	case <-ctx.Done():
		return false
	}
	return true
}

func (d *daemon) renewCertificates(ctx context.Context) error {
	r := renewer{due: d.admission.renewal, renew: d.renew, log: d.log}
	return r.run(ctx)
}

func (d *daemon) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	csr, err := identity.NewCSR(d.key, d.cfg.Name)
	if err != nil {
		return err
	}
	conn, err := d.server.Conn(d.self)
	if err != nil {
		return err
	}
	reply, err := pb.NewSyncServiceClient(conn).RenewCertificate(ctx, &pb.RenewCertificateRequest{Csr: csr})
	if err != nil {
		return wire.ErrorFromStatus(err)
	}
	if err := d.admission.replace(reply.GetCertificate()); err != nil {
		return err
	}
	d.memberMu.Lock()
	defer d.memberMu.Unlock()
	d.member.Certificate = reply.GetCertificate()
	return d.dir.saveJSON(membershipFile, d.member)
}

// seenFile says when an anchor answered last: a daemon that starts knows from it
// whether it is on an island.
const seenFile = "anchor-seen.json"

// seenEvery bounds how often it is written, for the sake of the disk. That much
// may be forgotten, which makes a restarted daemon that much more lenient.
const seenEvery = 10 * time.Minute

// rememberAnchors keeps seenFile up to date until ctx ends.
func (d *daemon) rememberAnchors(ctx context.Context) error {
	var saved time.Time
	save := func() {
		seen := d.admission.lastAnchor()
		if !seen.After(saved) {
			return
		}
		if err := d.dir.saveJSON(seenFile, seen); err != nil {
			d.log.Warn("when an anchor was seen last was not saved", zap.Error(err))
			return
		}
		saved = seen
	}
	for retry.Sleep(ctx, seenEvery) == nil {
		save()
	}
	save()
	return nil
}

// recallAnchors reads seenFile. Without it no anchor was ever seen.
func (d *daemon) recallAnchors() {
	var seen time.Time
	if d.dir.loadJSON(seenFile, &seen) == nil {
		d.admission.sawAnchorAt(seen)
	}
}
