package cli

import (
	"os"

	"golang.org/x/term"

	"github.com/cloudless-project/cloudless/api"
)

// colour is the number of a colour of terminals; 0 is none.
type colour int

const (
	colourNone   colour = 0
	colourRed    colour = 31
	colourGreen  colour = 32
	colourYellow colour = 33
)

// stateColours says which states a person should notice.
var stateColours = map[string]colour{
	string(api.NodeReady):    colourGreen,
	string(api.NodeJoining):  colourYellow,
	string(api.NodeSuspect):  colourYellow,
	string(api.NodeDraining): colourYellow,
	string(api.NodeCordoned): colourYellow,
	string(api.NodeCutOff):   colourRed,
	string(api.NodeDown):     colourRed,

	string(api.WorkloadHealthy):     colourGreen,
	string(api.WorkloadProgressing): colourYellow,
	string(api.WorkloadPending):     colourYellow,
	string(api.WorkloadDegraded):    colourRed,
	string(api.WorkloadFailed):      colourRed,

	string(api.ReplicaReady):    colourGreen,
	string(api.ReplicaNotReady): colourRed,
	string(api.ReplicaFailed):   colourRed,
	string(api.ReplicaLost):     colourRed,
	string(api.ReplicaUnknown):  colourYellow,
}

func (a *app) coloured() bool {
	return !a.flags.noColor && os.Getenv(envNoColor) == "" && os.Getenv("TERM") != "dumb" && isTerminal(a.stdout)
}

// isTerminal reports whether a stream of the process is one.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
