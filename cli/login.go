package cli

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"os/user"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/p2p"
	"github.com/cloudless-project/cloudless/security/identity"
)

type loginOptions struct {
	token    string
	context  string // "" for the cluster's name
	operator string
}

func (a *app) loginCommand() *cobra.Command {
	var opts loginOptions
	cmd := &cobra.Command{
		Use:   "login TOKEN",
		Short: "Make an operator's identity and a context on a machine that is no node",
		Long: "Make an operator's identity and a context on a machine that is no node.\n\n" +
			"TOKEN may be @FILE or - for stdin. Make one on a node with\n" +
			"\"cloudless token create --role operator\".",
		Args: exactly("TOKEN"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		timeout := a.flags.timeout
		if timeout == 0 {
			timeout = defaultTimeout
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
		defer cancel()
		text, err := a.readToken(args[0])
		if err != nil {
			return err
		}
		opts.token, opts.context = text, a.flags.context
		return runLogin(ctx, opts, a.now(), p2p.Enrol, a.printer())
	}
	cmd.Flags().StringVar(&opts.operator, "name", "", "`NAME` of the operator (default yours on this machine)")
	return cmd
}

// enroller is p2p.Enrol, or its stand-in.
type enroller func(context.Context, p2p.EnrolConfig) (p2p.EnrolReply, error)

func runLogin(ctx context.Context, opts loginOptions, now time.Time, enrol enroller, p *printer) error {
	token, err := identity.ParseToken(opts.token)
	if err != nil {
		return err
	}
	if token.Role != api.RoleOperator && token.Role != api.RoleViewer {
		return api.Errorf(api.KindInvalid, "this token is for a %s, not for a person", token.Role).
			WithHint("use it with \"cloudless node start --join\", or make one with \"cloudless token create --role operator\"")
	}
	name, err := operatorName(opts.operator)
	if err != nil {
		return err
	}
	all, err := loadContexts()
	if err != nil {
		return err
	}
	access, err := enrolOperator(ctx, token, name, now, enrol)
	if err != nil {
		return err
	}
	access.Name = or(opts.context, access.ClusterName)
	all.put(access)
	all.Current = access.Name
	if err := all.save(); err != nil {
		return err
	}
	return p.done(newContextJSON(access, access.Name), access.Name, "logged in to %s as %s; the context %s is the current one",
		access.ClusterName, access.Operator, access.Name)
}

// enrolOperator makes a key, has it certified, and returns the new context.
func enrolOperator(ctx context.Context, token identity.Token, name string, now time.Time, enrol enroller) (*clusterAccess, error) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	csr, err := identity.NewCSR(key, name)
	if err != nil {
		return nil, err
	}
	reply, err := enrol(ctx, p2p.EnrolConfig{
		Key:     key,
		Anchors: token.Anchors,
		Request: p2p.EnrolRequest{Cluster: token.Cluster, TokenID: token.ID, Secret: token.Secret[:], CSR: csr, Name: name},

		Patience: p2p.EnrolPatience, // within the time of the command
	})
	if err != nil {
		return nil, err
	}
	ca, err := identity.ParseCA(reply.CA, token.Cluster)
	if err != nil {
		return nil, err
	}
	access := &clusterAccess{Cluster: token.Cluster, ClusterName: reply.ClusterName, Peers: peersOf(token, reply)}
	if access.CA, err = certificatePEM(reply.CA); err != nil {
		return nil, err
	}
	if access.Key, err = keyPEM(key); err != nil {
		return nil, err
	}
	if err := access.accept(reply.Certificate, identity.TrustIn(ca), identity.NodeID(public), now); err != nil {
		return nil, err
	}
	return access, nil
}

// peersOf lists the addresses of the anchors, those of the token first: one of
// them has just answered.
func peersOf(token identity.Token, reply p2p.EnrolReply) []string {
	peers := slices.Clone(token.Anchors)
	for _, anchor := range reply.Anchors {
		for _, address := range anchor.Addresses {
			if !strings.Contains(address, "/p2p/") {
				address += "/p2p/" + string(anchor.ID)
			}
			if !slices.Contains(peers, address) {
				peers = append(peers, address)
			}
		}
	}
	return peers
}

// operatorName returns the name that was given, or the user's on this machine
// as far as it can be one.
func operatorName(given string) (string, error) {
	if given != "" {
		return given, api.ValidateName("--name", given)
	}
	name := "operator"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if _, account, ok := strings.Cut(name, `\`); ok { // DOMAIN\account
		name = account
	}
	name = strings.Trim(strings.Map(func(r rune) rune {
		if (r >= 'a' && r <= 'z') || (r >= '0' && r <= '9') {
			return r
		}
		return '-'
	}, strings.ToLower(name)), "-")
	if api.ValidateName("--name", name) != nil {
		return "operator", nil
	}
	return name, nil
}

func publicKey(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }
