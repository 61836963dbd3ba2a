package wire

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cloudless-project/cloudless/api"
)

func TestErrorsTravel(t *testing.T) {
	for kind := range kindCodes {
		sent := &api.Error{Kind: kind, Field: "spec.ports[0].port", Message: "is wrong", Hint: "make it right"}
		var got *api.Error
		if !errors.As(ErrorFromStatus(ErrorToStatus(fmt.Errorf("apply web: %w", sent))), &got) {
			t.Fatalf("%s: no *api.Error arrived", kind)
		}
		if got.Kind != kind || got.Field != sent.Field || got.Message != sent.Message || got.Hint != sent.Hint {
			t.Errorf("sent %+v, got %+v", sent, got)
		}
	}
	if len(codeKinds) < len(kindCodes) {
		t.Error("two kinds share a code")
	}
}

func TestErrorsOfOthers(t *testing.T) {
	tests := []struct {
		name string
		err  error
		code codes.Code
		kind api.Kind
	}{
		{"plain", errors.New("disk on fire"), codes.Internal, api.KindInternal},
		{"cancelled", fmt.Errorf("wait: %w", context.Canceled), codes.Canceled, api.KindInternal},
		{"late", fmt.Errorf("wait: %w", context.DeadlineExceeded), codes.DeadlineExceeded, api.KindTimeout},
		{"forwarded", status.Error(codes.NotFound, "no such node"), codes.NotFound, api.KindNotFound},
		{"stranger", status.Error(codes.Unauthenticated, "who are you"), codes.Unauthenticated, api.KindDenied},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			sent := ErrorToStatus(test.err)
			if got := status.Code(sent); got != test.code {
				t.Errorf("code %v, want %v", got, test.code)
			}
			if got := api.KindOf(ErrorFromStatus(sent)); got != test.kind {
				t.Errorf("kind %q, want %q", got, test.kind)
			}
		})
	}
	if ErrorToStatus(nil) != nil || ErrorFromStatus(nil) != nil {
		t.Error("no error became an error")
	}
	if !errors.Is(ErrorFromStatus(ErrorToStatus(context.Canceled)), context.Canceled) {
		t.Error("a cancelled call is not context.Canceled any more")
	}
}

func TestEveryProblemTravels(t *testing.T) {
	sent := fmt.Errorf("validate: %w", errors.Join(
		api.Invalid("spec.replicas", "is negative"),
		api.Invalid("spec.image", "is missing").WithHint("name one"),
	))
	got := api.Problems(ErrorFromStatus(ErrorToStatus(sent)))
	if len(got) != 2 || got[0].Field != "spec.replicas" || got[1].Hint != "name one" {
		t.Errorf("got %v", got)
	}
}

func TestErrorTextIsBounded(t *testing.T) {
	long := strings.Repeat("\xffü", maxText)
	sent := status.Convert(ErrorToStatus(api.Errorf(api.KindInvalid, "%s", long)))
	if n := len(sent.Message()); n > 4*maxText || !utf8.ValidString(sent.Message()) {
		t.Errorf("a text of %d bytes left, valid UTF-8: %v", n, utf8.ValidString(sent.Message()))
	}
}
