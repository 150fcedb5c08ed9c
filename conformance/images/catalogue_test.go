// Tests of the catalogue and its cache, with layers that hold next to nothing.

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// small packs layers that hold next to nothing, for tests of what is around them.
func small(t *testing.T) layers {
	t.Helper()
	content := func(name string) layer { return pack(t, markLayer(name)) }
	return layers{
		busybox: content("busybox"), group: content("group"), nginx: content("nginx"),
		site: content("site"), escalate: content("escalate"), pause: content("pause"),
	}
}

// stored builds the whole catalogue and gives the identifier of each reference's image for this machine.
func stored(t *testing.T, root string) map[string]string {
	t.Helper()
	all, err := catalogue(small(t))
	if err != nil {
		t.Fatal(err)
	}
	s, err := newStore(root)
	if err != nil {
		t.Fatal(err)
	}
	identifiers := map[string]string{}
	for _, n := range all {
		top, err := n.image.put(s)
		if err != nil {
			t.Fatal(err)
		}
		for _, reference := range n.references {
			s.name(reference, top)
			identifiers[reference] = identifier(t, s, top)
		}
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	return identifiers
}

// identifier is the digest of the configuration of the image for this machine.
func identifier(t *testing.T, s *store, d descriptor) string {
	t.Helper()
	return manifestOf(t, s, d).Config.Digest
}

func manifestOf(t *testing.T, s *store, d descriptor) manifest {
	t.Helper()
	text, err := s.get(d)
	if err != nil {
		t.Fatal(err)
	}
	var machines index
	if err := json.Unmarshal(text, &machines); err != nil {
		t.Fatal(err)
	}
	for _, m := range machines.Manifests {
		if m.Platform.Architecture == runtime.GOARCH {
			return manifestOf(t, s, m)
		}
	}
	var m manifest
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestImagesThatSpecsTellApartAreDifferent(t *testing.T) {
	same := map[string]string{
		"k8s.gcr.io/pause:3.9":                    "registry.k8s.io/pause:3.9",
		staging + "test-image-tags:2":             staging + "test-image-tags:1",
		staging + "test-image-tags:3":             staging + "test-image-tags:1",
		"public.ecr.aws/docker/library/busybox:1": "public.ecr.aws/docker/library/busybox:1-uclibc",
	}
	identifiers := stored(t, t.TempDir())
	owner := map[string]string{}
	for reference, id := range identifiers {
		if first, meant := same[reference]; meant {
			if id != identifiers[first] {
				t.Errorf("%s is another image than %s", reference, first)
			}
			continue
		}
		if other, taken := owner[id]; taken {
			t.Errorf("%s and %s are one image", reference, other)
		}
		owner[id] = reference
	}
}

func TestARebuildChangesNothing(t *testing.T) {
	root := t.TempDir()
	stored(t, root)
	before := read(t, filepath.Join(root, "index.json"))
	stored(t, root)
	if read(t, filepath.Join(root, "index.json")) != before {
		t.Fatal("the second build gave other digests than the first")
	}
}

func TestADamagedBlobIsNotGivenOut(t *testing.T) {
	root := t.TempDir()
	s, err := newStore(root)
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.put("text/plain", []byte("whole"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.path(d), []byte("half"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.get(d); err == nil {
		t.Fatal("a blob that is not what its digest says was given out")
	}
}

func TestMirrorsAreWrittenForEveryRegistry(t *testing.T) {
	root, certs := t.TempDir(), t.TempDir()
	stored(t, root)
	s, err := openStore(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeMirrors(certs, "127.0.0.1:5", s); err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"registry.k8s.io", "k8s.gcr.io", "gcr.io", "public.ecr.aws"} {
		hosts := read(t, filepath.Join(certs, host, "hosts.toml"))
		if !strings.Contains(hosts, `[host."http://127.0.0.1:5"]`) {
			t.Errorf("%s has no mirror: %s", host, hosts)
		}
	}
}

func TestALibraryThatNoPackageHasIsNamed(t *testing.T) {
	_, err := locate(t.TempDir(), "libmissing.so.1")
	if err == nil || !strings.Contains(err.Error(), "libmissing.so.1") {
		t.Fatalf("the error is %v", err)
	}
}

func TestAnAppletThatSpecsCallIsMissed(t *testing.T) {
	program := filepath.Join(t.TempDir(), "busybox")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho [ sh ls cat\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := busyboxLayer(program); err == nil || !strings.Contains(err.Error(), "brctl") {
		t.Fatalf("the error is %v", err)
	}
}

func TestThePlaceToUploadToMayBeRelativeAndHaveAQuery(t *testing.T) {
	for location, want := range map[string]string{
		"/v2/a/blobs/uploads/1":               "http://h:5/v2/a/blobs/uploads/1?digest=sha256%3Aab",
		"http://h:5/v2/a/blobs/uploads/1?s=2": "http://h:5/v2/a/blobs/uploads/1?digest=sha256%3Aab&s=2",
	} {
		got, err := uploadTarget("http://h:5/v2/a", location, "sha256:ab")
		if err != nil || got != want {
			t.Errorf("%s became %s (%v), not %s", location, got, err, want)
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
