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

// renewCertificates gets a new certificate well before the old one ends, again
// and again. Nothing restarts: the mesh presents the new one from then on.
func (d *daemon) renewCertificates(ctx context.Context) error {
	backoff := retry.Backoff{Initial: 2 * time.Second, Max: 10 * time.Minute}
	wait := time.Second
	for retry.Sleep(ctx, wait) == nil {
		// A timer stands still while the device sleeps, and the clock may be set:
		// look again soon instead of waiting for the moment itself.
		if left := time.Until(d.admission.renewal()); left > 0 {
			wait = min(left, lookAtClock)
			continue
		}
		err := d.renew(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			backoff.Reset()
			wait = lookAtClock
			d.log.Info("renewed the membership certificate", zap.Time("until", d.admission.self().NotAfter))
		default:
			wait = backoff.Next()
			d.log.Warn("renewing the membership certificate failed", zap.Error(err), zap.Duration("retry_in", wait))
		}
	}
	return nil
}

// lookAtClock is also the least time between two renewals: a device whose clock
// is far ahead takes every certificate for an old one.
const lookAtClock = time.Minute

func (d *daemon) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
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
