package obs_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/internal/obs"
)

func TestLoggerWritesOneJSONObjectPerLine(t *testing.T) {
	var out bytes.Buffer
	log, err := obs.NewLogger(&out, "")
	if err != nil {
		t.Fatal(err)
	}
	log.Debug("not shown")
	log.Info("shown", zap.Error(errors.New("boom")), zap.Duration("took", 1500*time.Millisecond))
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatalf("%v in %q", err, out.String())
	}
	if line["msg"] != "shown" || line["error"] != "boom" || line["took"] != "1.5s" {
		t.Errorf("got %v", line)
	}
}

func TestLoggerRefusesUnknownLevels(t *testing.T) {
	if _, err := obs.NewLogger(&bytes.Buffer{}, "loud"); err == nil {
		t.Error("accepted the level loud")
	}
}
