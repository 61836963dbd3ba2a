package api

// Reads are linearizable: the leading anchor answers them. A person who looks
// while no anchor can be reached may ask for what a node knew last instead.
const (
	// AllowStale is the key of the call's metadata that asks for that, as "1".
	AllowStale = "cloudless-allow-stale"
	// StaleSince is the key of the answer's headers that says that it is old, and
	// as of when (RFC 3339). The rows of the answer say so too.
	StaleSince = "cloudless-stale-since"
)
