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
//   - in doubt, when it has been silent for longer than its spacing explains:
//     witnesses are asked, those on its LAN first;
//   - suspect, a little later: it gets no traffic, and nothing is moved;
//   - down, when the silence lasts and no witness reaches it. With nobody to ask
//     it takes longer, and less so when its last connection broke. A broken
//     connection alone decides nothing. A path that delays heartbeats again and
//     again, and a node that came back from a silence before, are given more time.
//   - It stays suspect while a witness elsewhere reaches it: then it is the judge's
//     own path that is broken.
//   - cut off instead of down, when it seems to live without a way to the judge: a
//     witness on its LAN sees it; or all nodes of its zone (two or more) went dark
//     together; or more than half of the cluster did, so perhaps it is the judge
//     who is offline. The first two are down after HouseGrace; the third never
//     ends in death by itself, because what runs there goes on running.
//   - A node that said goodbye is suspect at once and down after PauseGrace: its
//     containers still run, and a restarted daemon adopts them.
//
// Deaths of the same moment wait for each other, for about one heartbeat, so that
// they are one change of the cluster. In a cluster of dozens, a node that falls
// silent while others come and go, after some have died, is given more time: it is
// likely to be one of them.
//
// A path that loses most of what is sent is of no use either, though its node is
// heard now and then. It is given up when heartbeats were overdue for a quarter of
// the time and most witnesses miss the node as well, together with those that are
// about to be, and takes no work until it is well.
//
// A witness that does not answer holds a
// verdict up until it is heard again or is silent itself: perhaps its whole house
// went dark and it has not been missed yet.
//
// What it leaves to the caller: to deliver the events, to commit the verdicts,
// and to put its questions to the witnesses and to the silent node itself, whose
// answer counts as hearing it. The stories in testdata show it at work.
package liveness
