// Tests of the layers: what a tar must be like that unpackers agree about.

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"testing"
)

func TestALayerRefusesToHaveAPathTwice(t *testing.T) {
	l := newTree()
	l.file("etc/passwd", 0o644, nil)
	l.symlink("etc/passwd", "elsewhere")
	if _, err := l.pack(); err == nil {
		t.Fatal("a layer with etc/passwd twice was packed")
	}
}

func TestALayerRefusesAPathThatLeavesIt(t *testing.T) {
	for _, name := range []string{"/etc/passwd", "a/../../b", "./a", "a/"} {
		l := newTree()
		l.file(name, 0o644, nil)
		if _, err := l.pack(); err == nil {
			t.Errorf("a layer with %q was packed", name)
		}
	}
}

func TestAHardLinkComesAfterTheFileItNames(t *testing.T) {
	l := newTree()
	l.file("bin/busybox", 0o755, []byte("program"))
	l.hardlink("bin/ash", "bin/busybox")
	names := namesOf(t, l)
	want := []string{"bin/", "bin/busybox", "bin/ash"}
	if len(names) != len(want) {
		t.Fatalf("the layer holds %q, not %q", names, want)
	}
	for i := range want {
		if names[i] != want[i] {
			t.Fatalf("the layer holds %q, not %q", names, want)
		}
	}
}

func TestTheSameContentMakesTheSameLayer(t *testing.T) {
	first, second := newTree(), newTree()
	for _, name := range []string{"a", "b", "c", "d"} {
		first.file(name, 0o644, []byte(name))
	}
	for _, name := range []string{"d", "b", "a", "c"} {
		second.file(name, 0o644, []byte(name))
	}
	if digestOf(pack(t, first).blob) != digestOf(pack(t, second).blob) {
		t.Fatal("the order of filling changes the layer")
	}
}

func pack(t *testing.T, filled *tree) layer {
	t.Helper()
	l, err := filled.pack()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func namesOf(t *testing.T, filled *tree) []string {
	t.Helper()
	plain, err := gzip.NewReader(bytes.NewReader(pack(t, filled).blob))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for reader := tar.NewReader(plain); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, header.Name)
	}
}
