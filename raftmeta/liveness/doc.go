// Package liveness decides from the silence of nodes whether they are alive.
//
// It is pure: events and the time come in, verdicts come out, so the same
// history gives the same verdicts on every anchor and in simulation. All
// anchors feed a Detector all the time and only the leader acts on it, so a
// change of leader resets no timer.
//
// # How silence is judged
//
// Each node's spacing of heartbeats is estimated as in RFC 6298 (mean and mean
// deviation, exponentially weighted). A node whose link is jittery earns
// patience, a node on a quiet path gets speed, both within bounds:
//
//   - suspect, when it has been silent for longer than its spacing explains: it
//     gets no traffic, and nothing is moved;
//   - down, when the silence lasts; sooner when the transport has seen its last
//     connection break too. A broken connection alone decides nothing;
//   - cut off instead of down, when the silence is not its own: all nodes of its
//     zone (two or more) went dark together, so the house is offline; or more than
//     half of the cluster did, so perhaps it is the judge who is offline. A house
//     that stays dark is down after HouseGrace; of the second case no verdict
//     of death ever follows, because what runs there goes on running.
//   - A node that said goodbye is suspect at once and down after PauseGrace: its
//     containers still run, and a restarted daemon adopts them.
//
// What it leaves to the caller: to deliver the events, to commit the verdicts,
// and to ask a suspect directly, which counts as hearing it when it answers.
package liveness
