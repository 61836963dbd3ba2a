package node

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/p2p"
	"github.com/cloudless-project/cloudless/raftmeta"
	"github.com/cloudless-project/cloudless/raftmeta/state"
	"github.com/cloudless-project/cloudless/security/identity"
)

// certificateTTL is how long a membership certificate holds after it was issued;
// with what it is dated back it lives for the most that it may.
const certificateTTL = identity.MaxTTL - identity.Backdate

// authorityDir holds the sealed key of the cluster's CA, on anchors.
const authorityDir = "authority"

// become returns this node's membership: the one it has, that of a cluster it
// founds, or that of one it joins.
func become(ctx context.Context, cfg *Config, dir *dataDir, key ed25519.PrivateKey, log *zap.Logger) (*membership, error) {
	m, err := dir.loadMembership()
	if err != nil {
		return nil, err
	}
	if m != nil {
		if cfg.Join != "" && knownRemoved(dir, key) {
			return nil, errRemoved().WithHint("empty %s and join with a new token to come back", cfg.DataDir)
		}
		return m, resumes(cfg, m, log)
	}
	switch {
	case cfg.Init:
		m, err = found(cfg, dir, key)
	case cfg.Join != "":
		m, err = join(ctx, cfg, key, log)
	default:
		return nil, api.Errorf(api.KindInvalid, "%s belongs to no cluster yet", dir.path).
			WithHint("found one with --init, or join one with --join TOKEN (on a member: cloudless token create)")
	}
	if err != nil {
		return nil, err
	}
	return m, dir.saveJSON(membershipFile, m)
}

// knownRemoved reports whether the last view says that this node was removed.
func knownRemoved(dir *dataDir, key ed25519.PrivateKey) bool {
	var v api.ClusterView
	if dir.loadJSON(viewFile, &v) != nil {
		return false // as good as none
	}
	self := string(identity.NodeID(key.Public().(ed25519.PublicKey)))
	return slices.ContainsFunc(v.Revocations, func(r api.Revocation) bool { return r.ID == self })
}

// resumes checks that what the user asks for is what the directory is.
func resumes(cfg *Config, m *membership, log *zap.Logger) error {
	if cfg.Join != "" {
		token, err := identity.ParseToken(cfg.Join)
		if err != nil {
			return err
		}
		if token.Cluster != m.Cluster {
			return api.Errorf(api.KindConflict, "this node is a member of cluster %s (%s), the token is for cluster %s", m.Name, m.Cluster, token.Cluster).
				WithHint("use another --data-dir to join a second cluster, or empty this one to leave the first")
		}
		m.learnAnchors(token)
	}
	if cfg.Init || cfg.Join != "" {
		log.Info("already a member, resuming", zap.String("cluster", m.Name))
	}
	return nil
}

// found makes a new cluster whose authority and only anchor this node is. The
// authority is sealed before the membership that needs it is written.
func found(cfg *Config, dir *dataDir, key ed25519.PrivateKey) (*membership, error) {
	authority, err := identity.NewAuthority(cfg.Cluster, time.Now())
	if err != nil {
		return nil, err
	}
	if err := sealAuthority(dir, authority); err != nil {
		return nil, err
	}
	csr, err := identity.NewCSR(key, cfg.Name)
	if err != nil {
		return nil, err
	}
	cert, _, err := authority.Issue(csr, []api.Role{api.RoleNode, api.RoleAnchor}, "", time.Now(), certificateTTL)
	if err != nil {
		return nil, err
	}
	return &membership{
		Cluster:     authority.ClusterID(),
		Name:        cfg.Cluster,
		CA:          authority.Certificate().Raw,
		Certificate: cert,
		Anchor:      true,
	}, nil
}

// sealAuthority stores an authority in the node's directory.
func sealAuthority(dir *dataDir, authority *identity.Authority) error {
	if err := dir.MkdirAll(authorityDir, 0o700); err != nil {
		return fmt.Errorf("store authority: %w", err)
	}
	root, err := dir.OpenRoot(authorityDir)
	if err != nil {
		return fmt.Errorf("store authority: %w", err)
	}
	defer root.Close()
	return authority.Seal(root)
}

// openAuthority returns the cluster's authority on an anchor.
func openAuthority(dir *dataDir) (*identity.Authority, error) {
	root, err := dir.OpenRoot(authorityDir)
	if err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	defer root.Close()
	return identity.OpenAuthority(root)
}

// join enrols with a token at one of the anchors that it names.
func join(ctx context.Context, cfg *Config, key ed25519.PrivateKey, log *zap.Logger) (*membership, error) {
	token, err := identity.ParseToken(cfg.Join)
	if err != nil {
		return nil, err
	}
	if token.Role != api.RoleNode {
		return nil, api.Invalid("--join", "the token is for an %s, not for a node", token.Role).
			WithHint("use it with: cloudless login; or make one with: cloudless token create --role node")
	}
	csr, err := identity.NewCSR(key, cfg.Name)
	if err != nil {
		return nil, err
	}
	log.Info("enrolling", zap.String("cluster", token.Cluster), zap.Strings("anchors", token.Anchors))
	reply, err := p2p.Enrol(ctx, p2p.EnrolConfig{
		Key:     key,
		Anchors: token.Anchors,
		Request: p2p.EnrolRequest{Cluster: token.Cluster, TokenID: token.ID, Secret: token.Secret[:], CSR: csr, Name: cfg.Name},

		Patience: p2p.EnrolPatience,
		Waiting: func(answer error, wait time.Duration) {
			log.Warn("the anchors have no time for this device yet, asking again", zap.Error(answer), zap.Duration("retry_in", wait))
		},
	})
	if err != nil {
		return nil, err
	}
	ca, err := identity.ParseCA(reply.CA, token.Cluster)
	if err != nil {
		return nil, err
	}
	self := identity.NodeID(key.Public().(ed25519.PublicKey))
	if _, err := identity.Verify(reply.Certificate, ca, time.Now(), identity.VerifyOptions{Peer: self, Skew: identity.ClockSkew}); err != nil {
		return nil, err
	}
	m := &membership{Cluster: token.Cluster, Name: reply.ClusterName, CA: reply.CA, Certificate: reply.Certificate}
	for _, a := range reply.Anchors {
		m.Contacts = append(m.Contacts, contactFile{ID: a.ID, Addresses: a.Addresses})
	}
	return m, nil
}

// enroller takes joiners in, on an anchor.
type enroller struct {
	cluster  string
	name     string
	ca       []byte // of the founding authority, DER
	issue    func(csr []byte, roles []api.Role, operator string) (cert []byte, m api.Member, err error)
	anchor   *raftmeta.Anchor
	contacts func() []p2p.Contact
	log      *zap.Logger
}

// enrol redeems a token and issues a certificate. The token is used up and the
// node recorded in one entry; a joiner that misses the answer may ask again.
func (e *enroller) enrol(ctx context.Context, req p2p.EnrolRequest) (p2p.EnrolReply, error) {
	var none p2p.EnrolReply
	if err := e.check(req); err != nil {
		return none, err
	}
	peer := req.Peer
	token := identity.Token{ID: req.TokenID}
	copy(token.Secret[:], req.Secret)
	now := time.Now()
	view := e.anchor.Store().View()
	record, known := view.Token(req.TokenID)
	if !known || len(req.Secret) != len(token.Secret) || !identity.SecretMatches(req.Secret, record.SecretHash) {
		return none, api.Errorf(api.KindDenied, "the token is not known here, or was revoked").WithHint("make a new one with: cloudless token create")
	}
	if view.Revoked(peer) {
		return none, api.Errorf(api.KindDenied, "the identity %s was revoked", peer).
			WithHint("start with a fresh data directory, so that it makes a new identity")
	}
	roles, operator := []api.Role{record.Role}, ""
	if record.Role != api.RoleNode {
		operator = req.Name // checked when the certificate is issued
	} else if err := api.ValidateName("name", req.Name); err != nil {
		return none, err
	}
	cert, member, err := e.issue(req.CSR, roles, operator)
	if err != nil {
		return none, err
	}
	cmds := []state.Command{state.RedeemToken{ID: req.TokenID, SecretHash: token.Hash(), Peer: peer, Now: now}}
	if record.Role == api.RoleNode {
		cmds = append(cmds, state.EnrolNode{ID: peer, Name: req.Name, Serial: member.Serial, Now: now})
	} else {
		cmds = append(cmds, state.RecordEvent{Event: api.Event{
			Time: now, Code: api.CodeOperatorLogin, Reason: "Login",
			Object:  api.Object{Kind: "operator", Name: operator},
			Message: fmt.Sprintf("%s %s logged in with token %s", record.Role, operator, req.TokenID),
		}})
	}
	if _, err := e.anchor.Propose(ctx, cmds...); err != nil {
		return none, err
	}
	e.log.Info("enrolled", zap.String("peer", string(peer)), zap.String("role", string(record.Role)), zap.String("name", req.Name))
	return e.reply(cert), nil
}

// invited reports whether a request shows the secret of a token that has not
// expired, as far as a copy of the state goes: one that lags behind does not know
// the newest tokens. A token that is used up counts: its user may ask again.
func invited(view state.View, req p2p.EnrolRequest, now time.Time) bool {
	record, known := view.Token(req.TokenID)
	return known && now.Before(record.ExpiresAt) && identity.SecretMatches(req.Secret, record.SecretHash)
}

// check refuses what every anchor can refuse by itself.
func (e *enroller) check(req p2p.EnrolRequest) error {
	if req.Cluster != e.cluster {
		return api.Errorf(api.KindDenied, "the token is for another cluster")
	}
	peer, err := identity.CSRNode(req.CSR)
	if err != nil {
		return err
	}
	if peer != req.Peer {
		return api.Errorf(api.KindDenied, "the certificate request is for another key")
	}
	return nil
}

// reply is what a new member needs.
func (e *enroller) reply(certificate []byte) p2p.EnrolReply {
	return p2p.EnrolReply{
		Certificate: certificate,
		CA:          e.ca,
		ClusterName: e.name,
		Anchors:     e.contacts(),
	}
}
