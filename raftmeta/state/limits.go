package state

// The bounds of the state. They keep a snapshot in the tens of megabytes and
// every command quick; a request beyond one is refused with KindExhausted or
// KindInvalid, and rings drop their oldest row.
const (
	MaxNodes              = 5000
	MaxTokens             = 1000 // that have not expired
	MaxTokenUses          = 10000
	MaxRevocations        = 10000 // ring
	MaxWorkloads          = 10000
	MaxReplicas           = 1000 // of one workload
	MaxImages             = 1000
	MaxEvents             = 10000 // ring
	MaxTerminalPerSlot    = 3     // ended replicas remembered in each slot
	MaxDeletedGenerations = 1000  // deleted workloads whose generations are remembered
	MaxLabels             = 64    // of a node or workload
	MaxAuthorities        = 12    // generations of the cluster's authority, as in security/identity
	MaxCertificate        = 8 << 10
	MaxCommands           = 4096 // in one entry
	MaxEncoded            = 1 << 20
	maxName               = 63 // a DNS label
	maxID                 = 128
	maxText               = 1024 // reasons and notes; longer ones are cut
)
