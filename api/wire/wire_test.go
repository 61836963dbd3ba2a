package wire

import (
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"
)

// pair is one noun and its two conversions, with the types erased.
type pair struct {
	noun  reflect.Type
	toPB  func(any) proto.Message
	toAPI func(proto.Message) any
}

func pairOf[A any, P proto.Message](toPB func(A) P, fromPB func(P) A) pair {
	return pair{
		noun:  reflect.TypeFor[A](),
		toPB:  func(a any) proto.Message { return toPB(a.(A)) },
		toAPI: func(p proto.Message) any { return fromPB(p.(P)) },
	}
}

// pairs lists every noun that travels.
var pairs = []pair{
	pairOf(ResourcesToPB, ResourcesFromPB),
	pairOf(TaintToPB, TaintFromPB),
	pairOf(InventoryToPB, InventoryFromPB),
	pairOf(NodeToPB, NodeFromPB),
	pairOf(NodeStatusToPB, NodeStatusFromPB),
	pairOf(NodeUpdateToPB, NodeUpdateFromPB),
	pairOf(TokenToPB, TokenFromPB),
	pairOf(TokenRequestToPB, TokenRequestFromPB),
	pairOf(ReplicaToPB, ReplicaFromPB),
	pairOf(ReplicaReportToPB, ReplicaReportFromPB),
	pairOf(WorkloadSpecToPB, WorkloadSpecFromPB),
	pairOf(WorkloadToPB, WorkloadFromPB),
	pairOf(WorkloadStatusToPB, WorkloadStatusFromPB),
	pairOf(ApplyRequestToPB, ApplyRequestFromPB),
	pairOf(ExplanationToPB, ExplanationFromPB),
	pairOf(LogRequestToPB, LogRequestFromPB),
	pairOf(LogEntryToPB, LogEntryFromPB),
	pairOf(ExecRequestToPB, ExecRequestFromPB),
	pairOf(TerminalSizeToPB, TerminalSizeFromPB),
	pairOf(ImageToPB, ImageFromPB),
	pairOf(BlobToPB, BlobFromPB),
	pairOf(ServiceToPB, ServiceFromPB),
	pairOf(ServiceStatusToPB, ServiceStatusFromPB),
	pairOf(PeerToPB, PeerFromPB),
	pairOf(CheckToPB, CheckFromPB),
	pairOf(EventToPB, EventFromPB),
	pairOf(EventFilterToPB, EventFilterFromPB),
	pairOf(VersionToPB, VersionFromPB),
	pairOf(StatusToPB, StatusFromPB),
	pairOf(AnchorToPB, AnchorFromPB),
	pairOf(AnchorProgressToPB, AnchorProgressFromPB),
	pairOf(SnapshotToPB, SnapshotFromPB),
	pairOf(AuthorityToPB, AuthorityFromPB),
	pairOf(AuthorityStatusToPB, AuthorityStatusFromPB),
	pairOf(ClusterToPB, ClusterFromPB),
	pairOf(RevocationToPB, RevocationFromPB),
	pairOf(ClusterViewToPB, ClusterViewFromPB),
	pairOf(ViewDeltaToPB, ViewDeltaFromPB),
	pairOf(NodeReportToPB, NodeReportFromPB),
}

// A noun whose every field is filled survives the wire whole: whoever adds a
// field to package api and forgets the conversion is told here.
func TestEveryFieldOfANounTravels(t *testing.T) {
	for _, p := range pairs {
		t.Run(p.noun.Name(), func(t *testing.T) {
			noun := reflect.New(p.noun).Elem()
			n := 0
			fill(noun, func() int { n++; return n }, func() bool { return true })
			travels(t, p, noun.Interface())
		})
	}
}

// A message whose every field is filled survives too: whoever adds a field to a
// .proto file and forgets the noun is told here.
func TestEveryFieldOfAMessageIsUnderstood(t *testing.T) {
	for _, p := range pairs {
		t.Run(p.noun.Name(), func(t *testing.T) {
			message := p.toPB(reflect.New(p.noun).Elem().Interface())
			n := 0
			fillMessage(message.ProtoReflect(), func() int { n++; return n })
			if back := p.toPB(p.toAPI(message)); !proto.Equal(message, back) {
				t.Errorf("a field was lost:\n sent %v\n got  %v", message, back)
			}
		})
	}
}

// Whatever is there or missing, a noun arrives as it left.
func TestNounsTravel(t *testing.T) {
	for _, p := range pairs {
		t.Run(p.noun.Name(), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				noun := reflect.New(p.noun).Elem()
				fill(noun,
					func() int { return rapid.IntRange(0, 1<<30).Draw(t, "value") },
					func() bool { return rapid.Bool().Draw(t, "present") })
				travels(t, p, noun.Interface())
			})
		})
	}
}

// Peers of another version may leave out anything at all.
func TestAbsentMessages(t *testing.T) {
	for _, p := range pairs {
		t.Run(p.noun.Name(), func(t *testing.T) {
			empty := p.toPB(reflect.New(p.noun).Elem().Interface()).ProtoReflect().New().Interface()
			if got := p.toAPI(empty); !reflect.ValueOf(got).IsZero() {
				t.Errorf("an empty message became %+v", got)
			}
		})
	}
}

type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

func travels(t failer, p pair, noun any) {
	t.Helper()
	sent := p.toPB(noun)
	data, err := proto.Marshal(sent)
	if err != nil {
		t.Fatalf("marshal: %v", err)
	}
	received := sent.ProtoReflect().New().Interface()
	if err := proto.Unmarshal(data, received); err != nil {
		t.Fatalf("unmarshal: %v", err)
	}
	if got := p.toAPI(received); !reflect.DeepEqual(noun, got) {
		t.Fatalf("a field was lost:\n sent %+v\n got  %+v", noun, got)
	}
}

// fill sets v from next; where present says so it leaves slices, maps and
// pointers nil.
func fill(v reflect.Value, next func() int, present func() bool) {
	if v.Type() == reflect.TypeFor[time.Time]() {
		if present() {
			v.Set(reflect.ValueOf(time.Unix(int64(next()), int64(next())).UTC()))
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), next, present)
		}
	case reflect.Pointer:
		if present() {
			v.Set(reflect.New(v.Type().Elem()))
			fill(v.Elem(), next, present)
		}
	case reflect.Slice:
		if present() {
			v.Set(reflect.MakeSlice(v.Type(), 1+next()%2, 2))
			for i := range v.Len() {
				fill(v.Index(i), next, present)
			}
		}
	case reflect.Map:
		if present() {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(key, next, present)
			fill(value, next, present)
			v.Set(reflect.MakeMap(v.Type()))
			v.SetMapIndex(key, value)
		}
	case reflect.String:
		v.SetString(time.Duration(next()).String())
	case reflect.Bool:
		v.SetBool(present())
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(next()))
	case reflect.Uint8:
		v.SetUint(uint64(next() % 256))
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(next()))
	case reflect.Float64:
		v.SetFloat(float64(next()) / 4)
	default:
		panic("the filler does not know " + v.Type().String())
	}
}

func fillMessage(m protoreflect.Message, next func() int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case f.IsMap():
			key := protoreflect.ValueOfString(time.Duration(next()).String()).MapKey()
			m.Mutable(f).Map().Set(key, scalar(f.MapValue(), next))
		case f.IsList() && f.Message() != nil:
			fillMessage(m.Mutable(f).List().AppendMutable().Message(), next)
		case f.IsList():
			m.Mutable(f).List().Append(scalar(f, next))
		case f.Message() != nil:
			fillMessage(m.Mutable(f).Message(), next)
		default:
			m.Set(f, scalar(f, next))
		}
	}
}

func scalar(f protoreflect.FieldDescriptor, next func() int) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(time.Duration(next()).String())
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte{byte(next())})
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(next()))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(int64(next()))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(next()))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(uint64(next()))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(float64(next()) / 4)
	}
	panic("the filler does not know " + f.Kind().String())
}
