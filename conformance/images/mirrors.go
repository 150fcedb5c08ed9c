// The directory that tells a runtime to pull from our registry instead of the one an image's name says: a hosts.toml for each
// registry that critest's images are named after.

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// writeMirrors names our registry as the mirror and as the server too, so that nothing falls back to the real one.
func writeMirrors(dir, address string, s *store) error {
	hosts := fmt.Sprintf("server = \"http://%[1]s\"\n\n[host.\"http://%[1]s\"]\ncapabilities = [\"pull\", \"resolve\"]\n", address)
	for _, d := range s.names {
		host, _, _ := strings.Cut(d.reference(), "/")
		if err := os.MkdirAll(filepath.Join(dir, host), 0o755); err != nil {
			return err
		}
		if err := replace(filepath.Join(dir, host, "hosts.toml"), []byte(hosts)); err != nil {
			return err
		}
	}
	return nil
}
