package identity

import (
	"bufio"
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/tink-crypto/tink-go/v2/streamingaead/subtle"
	"golang.org/x/crypto/argon2"

	"github.com/cloudless-project/cloudless/api"
)

// A backup is a file that only the holder of its secret can read or change:
//
//	header      one line of JSON, in the clear, with a version
//	ciphertext  AES-256-GCM-HKDF in segments of 64 KiB (Tink), bound to the header
//	checksum    SHA-256 of everything before it, to find damage without the secret
//
// The plaintext is one line with the authority, then the state.
const (
	backupFormat   = "cloudless-backup"
	backupVersion  = 1
	backupSegment  = 64 << 10
	maxBackupLine  = 64 << 10
	MaxBackupSize  = 1 << 30 // bytes of a file
	BackupKeySize  = 32
	BackupSaltSize = 16

	argonTime, argonMemory, argonThreads = 3, 64 << 10, 2 // 64 MiB; about 0.2 s
)

// BackupHeader is what a backup says of itself in the clear.
type BackupHeader struct {
	Format    string    `json:"format"`
	Version   int       `json:"version"`
	Cluster   string    `json:"cluster"` // ID
	Name      string    `json:"name"`    // of the cluster
	Epoch     uint64    `json:"epoch"`
	Index     uint64    `json:"index"` // of the last entry in the state
	CreatedAt time.Time `json:"created_at"`
	Salt      []byte    `json:"salt"`

	// Of a snapshot: its key, sealed to a recovery key, and which one that is.
	Sealed   []byte `json:"sealed,omitempty"`
	Recovery string `json:"recovery,omitempty"`
}

// NewBackupSalt makes a salt for BackupKey.
func NewBackupSalt() ([]byte, error) {
	salt := make([]byte, BackupSaltSize)
	_, err := rand.Read(salt)
	return salt, err
}

// BackupKey makes the key of a backup from a passphrase, slowly on purpose.
func BackupKey(passphrase, salt []byte) []byte {
	return argon2.IDKey(passphrase, salt, argonTime, argonMemory, argonThreads, BackupKeySize)
}

// WriteBackup writes a backup of the authority and of the state that write
// produces.
func (a *Authority) WriteBackup(w io.Writer, h BackupHeader, key []byte, write func(io.Writer) error) error {
	h.Format, h.Version = backupFormat, backupVersion
	header, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	header = append(header, '\n')
	sum := sha256.New()
	out := io.MultiWriter(w, sum)
	if _, err := out.Write(header); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	sealer, err := backupCipher(key)
	if err != nil {
		return err
	}
	in, err := sealer.NewEncryptingWriter(out, header)
	if err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	plain, err := a.export()
	if err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	defer clear(plain)
	for _, b := range [][]byte{plain, {'\n'}} {
		if _, err := in.Write(b); err != nil {
			return fmt.Errorf("write backup: %w", err)
		}
	}
	if err := write(in); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	if err := in.Close(); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	_, err = w.Write(sum.Sum(nil))
	return err
}

func backupCipher(key []byte) (*subtle.AESGCMHKDF, error) {
	if len(key) != BackupKeySize {
		return nil, api.Invalid("key", "a backup's key has %d bytes, not %d", BackupKeySize, len(key))
	}
	main, err := hkdf.Key(sha256.New, key, nil, "cloudless backup", BackupKeySize)
	if err != nil {
		return nil, fmt.Errorf("backup key: %w", err)
	}
	return subtle.NewAESGCMHKDF(main, "SHA256", BackupKeySize, backupSegment, 0)
}

// ReadBackupHeader checks a backup's checksum and returns its header; size is
// that of the file.
func ReadBackupHeader(r io.ReaderAt, size int64) (BackupHeader, error) {
	h, _, err := readBackup(r, size)
	return h, err
}

// readBackup returns the header as such and as the bytes it is.
func readBackup(r io.ReaderAt, size int64) (h BackupHeader, raw []byte, err error) {
	damaged := func(format string, args ...any) (BackupHeader, []byte, error) {
		return h, nil, api.Errorf(api.KindInvalid, "this is no complete backup: "+format, args...).
			WithHint("use another copy of it, or an older backup")
	}
	if size <= sha256.Size || size > MaxBackupSize {
		return damaged("it has %d bytes", size)
	}
	body := io.NewSectionReader(r, 0, size-sha256.Size)
	raw, err = bufio.NewReaderSize(io.LimitReader(body, maxBackupLine), maxBackupLine).ReadBytes('\n')
	if err != nil || json.Unmarshal(raw, &h) != nil || h.Format != backupFormat {
		return damaged("it does not begin like one")
	}
	if h.Version != backupVersion {
		return h, nil, api.Errorf(api.KindUnsupported, "the backup is of version %d, this program reads %d", h.Version, backupVersion).
			WithHint("use the version of Cloudless that wrote it, or a newer one")
	}
	if len(h.Salt) > maxBackupLine {
		return damaged("its salt is too long")
	}
	same, err := sameSum(sha256.New(), r, size)
	if err != nil {
		return h, nil, fmt.Errorf("read backup: %w", err)
	}
	if !same {
		return damaged("its checksum does not match")
	}
	return h, raw, nil
}

func sameSum(sum hash.Hash, r io.ReaderAt, size int64) (bool, error) {
	if _, err := io.Copy(sum, io.NewSectionReader(r, 0, size-sha256.Size)); err != nil {
		return false, err
	}
	want := make([]byte, sha256.Size)
	if _, err := r.ReadAt(want, size-sha256.Size); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return bytes.Equal(sum.Sum(nil), want), nil
}

// OpenBackup opens a backup with its key, and returns the authority and a
// reader of the state. The state must be read to its end: only then is the
// whole known to be what was written.
func OpenBackup(r io.ReaderAt, size int64, key []byte) (*Authority, io.Reader, error) {
	h, raw, err := readBackup(r, size)
	if err != nil {
		return nil, nil, err
	}
	opener, err := backupCipher(key)
	if err != nil {
		return nil, nil, err
	}
	start := int64(len(raw))
	plain, err := opener.NewDecryptingReader(io.NewSectionReader(r, start, size-sha256.Size-start), raw)
	if err != nil {
		return nil, nil, fmt.Errorf("open backup: %w", err)
	}
	in := bufio.NewReaderSize(plain, maxBackupLine)
	line, err := in.ReadSlice('\n')
	if err != nil {
		return nil, nil, api.Errorf(api.KindDenied, "the backup cannot be opened with this secret").
			WithHint("give the passphrase or key file that it was made with")
	}
	authority, err := importAuthority(line, h.Cluster)
	clear(line)
	if err != nil {
		return nil, nil, err
	}
	return authority, in, nil
}
