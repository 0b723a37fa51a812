//go:build linux

package testkit

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// SliceSize is the size of the pieces in which the nginx of NewNginx fetches
// and keeps blobs, bytes.
const SliceSize = 256 << 10

// nginxConfig: folder, address, upstream. Blobs are kept in slices, each
// fetched by a range of its own; the rest is passed through. Pieces are
// compared by ETag, which distribution makes of the digest.
const nginxConfig = `daemon off;
user root;
worker_processes 1;
pid %[1]s/pid;
error_log %[1]s/error.log warn;
events { worker_connections 256; }
http {
	access_log off;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	proxy_cache_path %[1]s/cache levels=1:2 keys_zone=blobs:1m inactive=1h;
	proxy_http_version 1.1;
	proxy_set_header Host $http_host;
	server {
		listen %[2]s;
		client_max_body_size 0;
		location ~ ^/v2/.+/blobs/sha256: {
			slice %[4]d;
			proxy_cache blobs;
			proxy_cache_key $uri$slice_range;
			proxy_cache_valid 200 206 1h;
			proxy_set_header Host $http_host;
			proxy_set_header Range $slice_range;
			proxy_pass http://%[3]s;
		}
		location / { proxy_pass http://%[3]s; }
	}
}
`

// NewNginx starts nginx as a pull-through cache in slices before host, as a
// process of its own, and returns the proxy before it that sees all requests.
func NewNginx(t testing.TB, host string) *Proxy {
	t.Helper()
	addr := daemon(t, "nginx", func(dir, addr string) []string {
		config := filepath.Join(dir, "nginx.conf")
		if err := os.WriteFile(config, fmt.Appendf(nil, nginxConfig, dir, addr, host, SliceSize), 0o600); err != nil {
			t.Fatal(err)
		}
		return []string{"-p", dir, "-e", filepath.Join(dir, "error.log"), "-c", config}
	})
	return NewProxy(t, addr)
}
