package control

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
)

func TestAnswersAreGivenAgain(t *testing.T) {
	a := newAnswers()
	caller := &Caller{Member: member("op", api.RoleOperator), UID: -1}
	key, err := answerKey(caller, "Apply", "k1")
	if err != nil {
		t.Fatal(err)
	}
	first := &pb.ApplyWorkloadResponse{Outcome: "created"}
	a.remember(key, first, epoch)
	if got, ok := a.recall(key, epoch.Add(time.Minute)); !ok || got != first {
		t.Errorf("got %v, %v; want the first answer", got, ok)
	}
	if _, ok := a.recall(key, epoch.Add(time.Hour)); ok {
		t.Error("remembered for an hour")
	}
	other := &Caller{Member: member("other", api.RoleOperator), UID: -1}
	if theirs, _ := answerKey(other, "Apply", "k1"); theirs == key {
		t.Error("two callers share a key")
	}
	for i := range 2 * maxAnswers {
		a.remember(fmt.Sprint(i), first, epoch)
	}
	if len(a.given) > maxAnswers || len(a.order) > maxAnswers {
		t.Errorf("%d answers are kept, want at most %d", len(a.given), maxAnswers)
	}
	if _, err := answerKey(caller, "Apply", strings.Repeat("x", maxKey+1)); api.KindOf(err) != api.KindInvalid {
		t.Errorf("a key without bound: %v", err)
	}
}
