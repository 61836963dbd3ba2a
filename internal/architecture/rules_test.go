package architecture

import (
	"slices"
	"strings"
)

const module = "github.com/cloudless-project/cloudless"

// A layer says which packages of Cloudless a subtree may import. Packages of a
// subtree may always import each other.
type layer struct {
	tree string   // directory, with all that lies below unless a longer one matches
	may  []string // directories; "dir/..." includes what lies below
	why  string
}

const (
	whyNouns    = "the nouns are shared by everybody, so they depend on nobody"
	whySiblings = "siblings never import each other: declare the small interface you need, node supplies an adapter"
	whyInternal = "internal packages do one job for everybody and know nothing of Cloudless"
	whyCLI      = "the command line talks to a node through its API; it must compile where no node runs"
	whyRoot     = "main joins cli and node, and lends its executable to what the runtime starts; the work is done below"
	whyNode     = "node is the composition root: only main is above it"
	whySim      = "the simulator plays what decides purely in virtual time; the rest of the product is modelled, not imported"
	whyTestnet  = "the lab drives the real binary from outside; a test that reaches inside proves less"
)

var layers = []layer{
	{"api", nil, whyNouns},
	{"api/pb", nil, whyNouns},
	{"api/wire", []string{"api", "api/pb/..."}, "wire is the only place where messages and nouns meet"},
	{"api/manifest", []string{"api", "internal/..."}, "a manifest is read into nouns, nothing else"},
	{"api/client", []string{"api", "api/pb/...", "api/wire", "internal/..."}, "the client is the API seen from outside"},

	{"p2p", []string{"api", "internal/..."}, whySiblings},
	{"raftmeta", []string{"api", "internal/..."}, whySiblings},
	{"sched", []string{"api", "internal/..."}, whySiblings},
	{"blockstore", []string{"api", "internal/..."}, whySiblings},
	{"container", []string{"api", "internal/..."}, whySiblings},
	{"svcnet", []string{"api", "internal/..."}, whySiblings},
	{"security/identity", []string{"api", "internal/..."}, whySiblings},
	{"security/policy", []string{"api", "internal/..."}, whySiblings},
	{"security/secret", []string{"api", "internal/..."}, whySiblings},

	{"cli", []string{"api/...", "p2p", "security/identity", "internal/..."}, whyCLI},
	{"node", []string{"api/...", "p2p/...", "raftmeta/...", "sched/...", "blockstore/...", "container/...", "svcnet/...", "security/...", "internal/..."}, whyNode},
	{"testnet", []string{"api/...", "container/archive/...", "internal/..."}, whyTestnet},
	{"testnet/natmatrix", []string{"api", "p2p", "security/identity", "testnet", "internal/..."}, "the NAT matrix measures the mesh without a node around it"},
	{"testnet/sim", []string{"api/...", "raftmeta/...", "sched/...", "internal/..."}, "the simulator runs the real deciders in virtual time, and nothing that acts"},
	{"testnet/sim", []string{"api/...", "raftmeta/liveness", "internal/..."}, whySim},
	{"internal", nil, whyInternal},
	{".", []string{"api", "cli", "node", "container/logfile", "internal/..."}, whyRoot},
}

// An owner is the only part that imports a dependency, so that the rest of the
// house can do without it and a replacement touches one directory.
type owner struct {
	dependency string   // import path prefix
	trees      []string // directories that may
	except     string   // prefix that more may import …
	also       []string // … namely these
	why        string
}

var owners = []owner{
	{
		dependency: "github.com/libp2p/",
		trees:      []string{"p2p", "testnet"},
		except:     "github.com/libp2p/go-libp2p/core/",
		also:       []string{"node", "blockstore"},
		why:        "p2p is the only importer of libp2p; node may hand core types through and bitswap takes a host",
	},
	{dependency: "github.com/hashicorp/raft", trees: []string{"raftmeta"}, why: "raftmeta is the only importer of Raft"},
	{dependency: "github.com/ipfs/boxo", trees: []string{"blockstore"}, why: "boxo stays behind the blockstore's own small interfaces"},
	{dependency: "github.com/containerd/", trees: []string{"container/containerd"}, why: "only the containerd runtime knows containerd; everybody else sees container.Runtime"},
}

// pure lists the packages that decide and never act.
var pure = []string{"node/diagnosis", "raftmeta/state", "raftmeta/liveness", "raftmeta/anchors", "sched/place", "sched/reconcile", "sched/rollout"}

const whyPure = "this package is pure, so that it can be replayed, simulated and explained: time, identifiers and randomness arrive as arguments, and it touches no clock, disk, network or log"

var impureImports = []string{
	"os", "os/exec", "os/signal", "net", "net/http", "syscall", "log", "log/slog", "path/filepath",
	"math/rand", "math/rand/v2", "crypto/rand", "go.uber.org/zap", "github.com/google/uuid", "golang.org/x/sys/unix",
}

// clock lists what reads or awaits the time of day.
var clock = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTicker", "NewTimer"}

// under reports whether a directory is a tree or lies below it.
func under(dir, tree string) bool {
	return tree == "." && dir == "." || dir == tree || strings.HasPrefix(dir, tree+"/")
}

func underAny(dir string, trees []string) bool {
	return slices.ContainsFunc(trees, func(t string) bool { return under(dir, t) })
}

// layerOf returns the layer whose tree is the longest that holds dir.
func layerOf(dir string) (layer, bool) {
	var best layer
	for _, l := range layers {
		if under(dir, l.tree) && len(l.tree) > len(best.tree) {
			best = l
		}
	}
	return best, best.tree != ""
}

// allows reports whether the layer may import a directory of the module.
func (l layer) allows(dir string) bool {
	if own, ok := layerOf(dir); ok && own.tree == l.tree && l.tree != "internal" {
		return true
	}
	for _, m := range l.may {
		if tree, deep := strings.CutSuffix(m, "/..."); dir == tree || deep && under(dir, tree) {
			return true
		}
	}
	return false
}
