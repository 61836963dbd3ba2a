package api

// ExecRequest asks for a command to run in a replica.
type ExecRequest struct {
	Target  string // a workload (any of its replicas) or the ID of a replica
	Command []string
	Env     map[string]string
	TTY     bool          // stdout and stderr are one, as on a terminal
	Stdin   bool          // without it, the command's stdin is empty
	Size    *TerminalSize // of the caller's terminal, with TTY
}

// TerminalSize is the size of a terminal in characters.
type TerminalSize struct {
	Width  uint32
	Height uint32
}
