// A layer of an image: files collected by path, written as one tar that is the same whenever its content is the same. It knows
// nothing of what an image or a registry is.

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"path"
	"slices"
	"time"
)

// Every file and every image is as old as this, so that a rebuild changes no digest.
var epoch = time.Date(2020, time.January, 1, 0, 0, 0, 0, time.UTC)

type entry struct {
	kind   byte
	mode   int64
	target string
	body   []byte
}

// tree is a layer being filled. The first mistake is kept in err and told by pack, so that filling reads as a list.
type tree struct {
	entries map[string]entry
	err     error
}

func newTree() *tree {
	return &tree{entries: map[string]entry{}}
}

func (t *tree) dir(name string, mode int64) {
	t.add(name, entry{kind: tar.TypeDir, mode: mode})
}

func (t *tree) file(name string, mode int64, body []byte) {
	t.add(name, entry{kind: tar.TypeReg, mode: mode, body: body})
}

func (t *tree) symlink(name, target string) {
	t.add(name, entry{kind: tar.TypeSymlink, mode: 0o777, target: target})
}

// hardlink makes name another name of the file target, which must be in the same layer.
func (t *tree) hardlink(name, target string) {
	t.add(name, entry{kind: tar.TypeLink, mode: t.entries[target].mode, target: target})
}

// add refuses a path that is there already: unpackers disagree about what the second one of the same path means.
func (t *tree) add(name string, e entry) {
	_, taken := t.entries[name]
	switch {
	case t.err != nil:
	case taken:
		t.err = fmt.Errorf("the layer has %q twice: name each path once", name)
	case name != path.Clean(name) || path.IsAbs(name):
		t.err = fmt.Errorf("the layer's path %q is not plain and relative", name)
	default:
		t.entries[name] = e
	}
}

type layer struct {
	diffID string // digest of the tar
	blob   []byte // the tar, gzipped
}

// addParents names every directory that holds something: what an unpacker makes of one that no layer names is its own affair.
func (t *tree) addParents() {
	for name := range maps.Clone(t.entries) {
		for parent := path.Dir(name); parent != "."; parent = path.Dir(parent) {
			if _, there := t.entries[parent]; !there {
				t.dir(parent, 0o755)
			}
		}
	}
}

func (t *tree) pack() (layer, error) {
	t.addParents()
	if t.err != nil {
		return layer{}, t.err
	}
	plain, err := t.tar()
	if err != nil {
		return layer{}, err
	}
	blob, err := zip(plain)
	return layer{diffID: digestOf(plain), blob: blob}, err
}

// order is by path, so that a directory comes before what is in it, with the hard links last, after what they name.
func (t *tree) order() []string {
	var first, last []string
	for _, name := range slices.Sorted(maps.Keys(t.entries)) {
		if t.entries[name].kind == tar.TypeLink {
			last = append(last, name)
		} else {
			first = append(first, name)
		}
	}
	return append(first, last...)
}

func (t *tree) tar() ([]byte, error) {
	var out bytes.Buffer
	writer := tar.NewWriter(&out)
	for _, name := range t.order() {
		if err := write(writer, name, t.entries[name]); err != nil {
			return nil, fmt.Errorf("cannot put %q into the layer: %w", name, err)
		}
	}
	err := writer.Close()
	return out.Bytes(), err
}

func write(writer *tar.Writer, name string, e entry) error {
	header := tar.Header{
		Typeflag: e.kind, Name: name, Linkname: e.target, Mode: e.mode, Size: int64(len(e.body)), ModTime: epoch,
	}
	if e.kind == tar.TypeDir {
		header.Name += "/"
	}
	if err := writer.WriteHeader(&header); err != nil {
		return err
	}
	_, err := writer.Write(e.body)
	return err
}

func zip(plain []byte) ([]byte, error) {
	var out bytes.Buffer
	writer := gzip.NewWriter(&out)
	if _, err := writer.Write(plain); err != nil {
		return nil, err
	}
	err := writer.Close()
	return out.Bytes(), err
}

func digestOf(bytes []byte) string {
	sum := sha256.Sum256(bytes)
	return "sha256:" + hex.EncodeToString(sum[:])
}
