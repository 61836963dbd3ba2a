package dataplane

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// tableName is the only firewall table that Cloudless touches.
const tableName = "cloudless"

// A verdict here does not overrule another table's: where one of them drops,
// the packet is dropped.
//
// chain input: what containers send to the host itself
// chain forward: what containers send to the world, and the world to them
// chain postrouting: masquerade
type chainRules struct {
	chain nftables.Chain
	rules [][]expr.Any
}

func (p *Plane) firewall() []chainRules {
	bridge, subnet := p.cfg.Bridge, p.desired.Subnet
	from, to := iface(expr.MetaKeyIIFNAME, expr.CmpOpEq, bridge), iface(expr.MetaKeyOIFNAME, expr.CmpOpEq, bridge)
	accept, drop := verdict(expr.VerdictAccept), verdict(expr.VerdictDrop)

	input := [][]expr.Any{
		join(from, established(), accept),
		join(from, ping(), accept),
		join(from, drop),
	}
	forward := [][]expr.Any{
		join(from, to, accept), // container to container or VIP, where the kernel filters bridges
		join(from, established(), accept),
		join(from, ipv4(), address(fromAddr, expr.CmpOpNeq, subnet), drop),
		// Metadata services of clouds hand out the machine's credentials.
		join(from, ipv4(), address(toAddr, expr.CmpOpEq, netip.MustParsePrefix("169.254.0.0/16")), drop),
		join(from, ipv4(), accept),
		join(from, drop),
		join(to, established(), accept),
		join(to, drop),
	}
	chains := []chainRules{
		{chain("input", nftables.ChainHookInput, nftables.ChainPriorityFilter, nftables.ChainTypeFilter), input},
		{chain("forward", nftables.ChainHookForward, nftables.ChainPriorityFilter, nftables.ChainTypeFilter), forward},
	}
	if !p.desired.NoMasquerade {
		away := iface(expr.MetaKeyOIFNAME, expr.CmpOpNeq, bridge)
		chains = append(chains, chainRules{
			chain("postrouting", nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource, nftables.ChainTypeNAT),
			[][]expr.Any{join(ipv4(), address(fromAddr, expr.CmpOpEq, subnet), away, []expr.Any{&expr.Masq{}})},
		})
	}
	return chains
}

// setFirewall replaces the table in one transaction, unless the one there was
// made by this Plane and is complete.
func (p *Plane) setFirewall() error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nf_tables: %w", err)
	}
	want := p.firewall()
	mark := p.firewallMark()
	if same, err := firewallIs(conn, want, mark); err == nil && same {
		return nil
	}
	table := &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
	conn.AddTable(table) // so that the deletion never fails
	conn.DelTable(table)
	conn.AddTable(table)
	for _, c := range want {
		c.chain.Table = table
		conn.AddChain(&c.chain)
		for _, r := range c.rules {
			conn.AddRule(&nftables.Rule{Table: table, Chain: &c.chain, Exprs: r, UserData: mark})
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("replace table inet %s: %w", tableName, err)
	}
	return nil
}

// firewallMark is stored with every rule and tells what it was made for.
func (p *Plane) firewallMark() []byte {
	return fmt.Appendf(nil, "cloudless 1 %s %s %t", p.cfg.Bridge, p.desired.Subnet, p.desired.NoMasquerade)
}

// firewallIs reports whether the kernel's table has as many rules as wanted,
// all with the mark.
func firewallIs(conn *nftables.Conn, want []chainRules, mark []byte) (bool, error) {
	table := &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
	for _, c := range want {
		have, err := conn.GetRules(table, &nftables.Chain{Name: c.chain.Name, Table: table})
		if err != nil {
			return false, err
		}
		if len(have) != len(c.rules) {
			return false, nil
		}
		for _, r := range have {
			if string(r.UserData) != string(mark) {
				return false, nil
			}
		}
	}
	return true, nil
}

func (p *Plane) delFirewall() error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nf_tables: %w", err)
	}
	conn.DelTable(&nftables.Table{Name: tableName, Family: nftables.TableFamilyINet})
	if err := conn.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove table inet %s: %w", tableName, err)
	}
	return nil
}

func chain(name string, hook *nftables.ChainHook, prio *nftables.ChainPriority, kind nftables.ChainType) nftables.Chain {
	policy := nftables.ChainPolicyAccept
	return nftables.Chain{Name: name, Hooknum: hook, Priority: prio, Type: kind, Policy: &policy}
}

// What follows are the words that rules are made of. Each uses register 1 for
// its own comparison only.

func join(parts ...[]expr.Any) []expr.Any {
	var rule []expr.Any
	for _, p := range parts {
		rule = append(rule, p...)
	}
	return rule
}

func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }

func iface(key expr.MetaKey, op expr.CmpOp, name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: padded}}
}

func ipv4() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.NFPROTO_IPV4}},
	}
}

// The offsets of the addresses in an IPv4 header.
const (
	fromAddr = 12
	toAddr   = 16
)

func address(offset uint32, op expr.CmpOp, p netip.Prefix) []expr.Any {
	n := ipNet(p.Masked())
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: n.Mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: 1, Data: n.IP},
	}
}

func established() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4, Xor: make([]byte, 4),
			Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

func ping() []expr.Any {
	const echoRequest = 8
	return join(ipv4(), []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_ICMP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{echoRequest}},
	})
}
