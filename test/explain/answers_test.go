//go:build linux

package explain

import (
	"time"

	"github.com/opencontainers/go-digest"
)

// The types are the answers of the binary, by the names that its users see.

type mounted struct {
	Mountpoint      string `json:"mountpoint"`
	Reference       string `json:"reference"`
	Digest          string `json:"digest"`
	ServerPID       int    `json:"server_pid"`
	State           string `json:"state"`
	Requests        int64  `json:"requests"`
	BytesFetched    int64  `json:"bytes_fetched"`
	BytesPresent    int64  `json:"bytes_present"`
	BytesTotal      int64  `json:"bytes_total"`
	BytesReused     int64  `json:"bytes_reused"`
	BytesPrefetched int64  `json:"bytes_prefetched"`
	BytesUnused     int64  `json:"bytes_unused"`
}

type explanation struct {
	mounted
	activity
	Links []struct {
		Host      string        `json:"host"`
		RoundTrip time.Duration `json:"round_trip_ns"`
		Requests  int64         `json:"requests"`
	} `json:"links"`
	Slowest []struct {
		Took  time.Duration `json:"took_ns"`
		Path  string        `json:"path"`
		Off   int64         `json:"off"`
		Size  int64         `json:"size"`
		Layer string        `json:"layer"`
		From  string        `json:"from"`
	} `json:"slowest"`
	Layers []struct {
		activity
		Digest       string `json:"digest"`
		BytesPresent int64  `json:"bytes_present"`
		BytesTotal   int64  `json:"bytes_total"`
	} `json:"layers"`
	Fill []struct {
		Digest digest.Digest `json:"digest"`
		State  string        `json:"state"`
		Total  int64         `json:"total"`
		Proved bool          `json:"proved"`
	} `json:"fill"`
}

type activity struct {
	Reads struct {
		Store   tally `json:"store"`
		Reuse   tally `json:"reuse"`
		Network tally `json:"network"`
	} `json:"reads"`
	RangeRequests   int64 `json:"range_requests"`
	DemandedBytes   int64 `json:"demanded_compressed"`
	GuessedBytes    int64 `json:"guessed_compressed"`
	PrefetchedBytes int64 `json:"prefetched_compressed"`
	ReusedBytes     int64 `json:"reused_compressed"`
	TouchedBytes    int64 `json:"touched_compressed"`
	UnusedBytes     int64 `json:"unused_compressed"`
	BetweenBytes    int64 `json:"between_compressed"`
}

type tally struct {
	Count  int64         `json:"count"`
	Bytes  int64         `json:"bytes"`
	Waited time.Duration `json:"waited_ns"`
}

type traceLine struct {
	T      float64 `json:"t"`
	Path   string  `json:"path"`
	Off    int64   `json:"off"`
	Len    int64   `json:"len"`
	Layer  int     `json:"layer"`
	Addr   int64   `json:"addr"`
	From   string  `json:"from"`
	Millis float64 `json:"ms"`
	Error  string  `json:"error"`
}
