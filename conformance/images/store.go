// The cache of the images: a directory in the OCI image layout (blobs by digest, index.json with the full names), so that other
// tools can read it as well. It is rebuilt whole and never garbage collected: a removed directory costs one rebuild.

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const nameAnnotation = "org.opencontainers.image.ref.name"

type store struct {
	root  string
	names []descriptor // what index.json lists
}

// newStore gives an empty list of names over whatever blobs are there already.
func newStore(root string) (*store, error) {
	if err := os.MkdirAll(filepath.Join(root, "blobs", "sha256"), 0o755); err != nil {
		return nil, err
	}
	marker := []byte(`{"imageLayoutVersion":"1.0.0"}`)
	return &store{root: root}, os.WriteFile(filepath.Join(root, "oci-layout"), marker, 0o644)
}

func openStore(root string) (*store, error) {
	bytes, err := os.ReadFile(filepath.Join(root, "index.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s holds no images: run conformance/setup first", root)
	}
	if err != nil {
		return nil, err
	}
	var document index
	if err := json.Unmarshal(bytes, &document); err != nil {
		return nil, fmt.Errorf("%s/index.json cannot be read, remove %s and run conformance/setup: %w", root, root, err)
	}
	return &store{root: root, names: document.Manifests}, nil
}

func (s *store) put(mediaType string, bytes []byte) (descriptor, error) {
	d := descriptor{MediaType: mediaType, Digest: digestOf(bytes), Size: len(bytes)}
	return d, replace(s.path(d), bytes)
}

func (s *store) get(d descriptor) ([]byte, error) {
	bytes, err := os.ReadFile(s.path(d))
	if err == nil && digestOf(bytes) != d.Digest {
		err = fmt.Errorf("%s is damaged: remove %s and run conformance/setup", s.path(d), s.root)
	}
	return bytes, err
}

func (s *store) name(reference string, d descriptor) {
	d.Annotations = map[string]string{nameAnnotation: reference}
	s.names = append(s.names, d)
}

// close writes the list of names, the last thing: a build that broke off before leaves the former list.
func (s *store) close() error {
	slices.SortFunc(s.names, func(a, b descriptor) int { return strings.Compare(a.reference(), b.reference()) })
	document := index{SchemaVersion: 2, MediaType: ociIndex.index, Manifests: s.names}
	bytes, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		return err
	}
	return replace(filepath.Join(s.root, "index.json"), bytes)
}

func (s *store) path(d descriptor) string {
	return filepath.Join(s.root, "blobs", "sha256", strings.TrimPrefix(d.Digest, "sha256:"))
}

// reference is the full name that the image goes by, empty for what has none.
func (d descriptor) reference() string {
	return d.Annotations[nameAnnotation]
}

func replace(path string, bytes []byte) error {
	half := path + ".half"
	if err := os.WriteFile(half, bytes, 0o644); err != nil {
		return err
	}
	return os.Rename(half, path)
}
