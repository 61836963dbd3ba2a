package node

import (
	"context"
	"crypto/ed25519"
	"io"
	"strings"
	"time"

	"github.com/multiformats/go-multiaddr"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/raftmeta"
	"github.com/cloudless-project/cloudless/raftmeta/state"
	"github.com/cloudless-project/cloudless/security/identity"
)

// RestoreConfig is what a cluster is restored from, and where to.
type RestoreConfig struct {
	DataDir string
	Name    string // of the new node, default the host's
	Backup  io.ReaderAt
	Size    int64  // of the backup, in bytes
	Key     []byte // that opens it
}

// Restored is the cluster after a restore.
type Restored struct {
	Cluster api.Cluster
	Node    api.NodeID
	Name    string // of the new node
}

// Restore makes a data directory, which must belong to no cluster, that of the
// only anchor of a cluster, from a backup. The cluster keeps its ID, its
// authority and its members; the new epoch puts every earlier anchor out of
// office. The membership is written last: without it nothing has happened.
func Restore(_ context.Context, cfg RestoreConfig) (Restored, error) {
	node := Config{DataDir: cfg.DataDir, Name: cfg.Name}
	if err := node.complete(); err != nil {
		return Restored{}, err
	}
	dir, err := openDataDir(node.DataDir)
	if err != nil {
		return Restored{}, err
	}
	defer dir.Close()
	if m, err := dir.loadMembership(); err != nil {
		return Restored{}, err
	} else if m != nil {
		return Restored{}, api.Errorf(api.KindConflict, "%s belongs to cluster %s already", dir.path, m.Name).
			WithHint("restore into a new data directory")
	}
	authority, saved, err := identity.OpenBackup(cfg.Backup, cfg.Size, cfg.Key)
	if err != nil {
		return Restored{}, err
	}
	key, err := identity.LoadOrCreateKey(dir.Root, keyFile)
	if err != nil {
		return Restored{}, err
	}
	for _, name := range []string{raftDir, authorityDir} { // of a restore that was interrupted
		if err := dir.RemoveAll(name); err != nil {
			return Restored{}, err
		}
	}
	return restore(dir, node.Name, key, authority, saved, time.Now())
}

func restore(dir *dataDir, name string, key ed25519.PrivateKey, authority *identity.Authority, saved io.Reader, now time.Time) (Restored, error) {
	csr, err := identity.NewCSR(key, name)
	if err != nil {
		return Restored{}, err
	}
	cert, member, err := authority.Issue(csr, []api.Role{api.RoleNode, api.RoleAnchor}, "", now, certificateTTL)
	if err != nil {
		return Restored{}, err
	}
	epoch := uint64(now.Unix())
	view, err := raftmeta.Restore(dir.join(raftDir), member.ID, saved, state.RestoreCluster{
		Epoch: epoch, Anchor: member.ID, Name: name, Serial: member.Serial, Now: now,
	})
	if err != nil {
		return Restored{}, err
	}
	if err := sealAuthority(dir, authority); err != nil {
		return Restored{}, err
	}
	cluster, _ := view.Cluster()
	self, _ := view.Node(member.ID)
	m := &membership{
		Cluster: cluster.ID, Name: cluster.Name, CA: cluster.CA, Certificate: cert,
		Anchor: true, Founded: true, Epoch: epoch,
	}
	if err := dir.saveJSON(membershipFile, m); err != nil {
		return Restored{}, err
	}
	return Restored{Cluster: cluster, Node: member.ID, Name: self.Inventory.Name}, nil
}

// learnAnchors adds the anchors that a token names to those that a member
// knows. It is how a node behind a NAT finds anchors that have moved.
func (m *membership) learnAnchors(token identity.Token) {
	var fresh []contactFile
	at := make(map[api.NodeID]int)
	for _, text := range token.Anchors {
		addr, id, ok := strings.Cut(text, "/p2p/")
		if _, err := multiaddr.NewMultiaddr(addr); !ok || err != nil {
			continue
		}
		i, known := at[api.NodeID(id)]
		if !known {
			i = len(fresh)
			at[api.NodeID(id)] = i
			fresh = append(fresh, contactFile{ID: api.NodeID(id)})
		}
		fresh[i].Addresses = append(fresh[i].Addresses, addr)
	}
	for _, c := range m.Contacts {
		if _, known := at[c.ID]; !known {
			fresh = append(fresh, c)
		}
	}
	m.Contacts = fresh
}
