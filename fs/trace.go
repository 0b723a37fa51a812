package fs

// TraceLine is one read(2) that reached the server of a mount: what the
// kernel's page cache answers never does. Times are those of the server.
type TraceLine struct {
	T      float64 `json:"t"`    // when the read came, seconds since the mount answered
	Path   string  `json:"path"` // from the root of the image, without a slash before it
	Off    int64   `json:"off"`
	Len    int64   `json:"len"`   // bytes answered; asked for, if it failed
	Layer  int     `json:"layer"` // 0 is the base
	Addr   int64   `json:"addr"`  // in the layer's address space, of the first byte that is not in a hole; -1 if all are
	From   string  `json:"from"`  // "store", "reuse", "network": the farthest that bytes came from; "none" if all are in holes
	Millis float64 `json:"ms"`    // until it was answered
	Error  string  `json:"error,omitempty"`
}
