package cache

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
)

// currentBoot returns the kernel's name for this run, a UUID that it draws when
// it starts (random(4)). Containers share their host's.
func currentBoot() (bootID, error) {
	const path = "/proc/sys/kernel/random/boot_id"
	text, err := os.ReadFile(path)
	if err != nil {
		return bootID{}, err
	}
	id, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(string(text)), "-", ""))
	if err != nil || len(id) != 16 {
		return bootID{}, fmt.Errorf("%s: %q is not a UUID", path, text)
	}
	return bootID{binary.BigEndian.Uint64(id), binary.BigEndian.Uint64(id[8:])}, nil
}
