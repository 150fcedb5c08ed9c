// The documents of an image: its configuration, its manifest and, where it has one, the index of its machines. Field names are
// those of the OCI image format; Docker's older format has the same fields under other media types.

package main

import (
	"encoding/json"
	"runtime"
)

// shape is how an image is described to the one who pulls it. The catalogue uses all four, so that each is pulled by some spec.
type shape struct {
	manifest, config, layer, index string // media types; no index: the tag names the manifest itself
}

var (
	dockerPlain = shape{
		manifest: "application/vnd.docker.distribution.manifest.v2+json",
		config:   "application/vnd.docker.container.image.v1+json",
		layer:    "application/vnd.docker.image.rootfs.diff.tar.gzip",
	}
	dockerList = shape{
		manifest: dockerPlain.manifest, config: dockerPlain.config, layer: dockerPlain.layer,
		index: "application/vnd.docker.distribution.manifest.list.v2+json",
	}
	ociPlain = shape{
		manifest: "application/vnd.oci.image.manifest.v1+json",
		config:   "application/vnd.oci.image.config.v1+json",
		layer:    "application/vnd.oci.image.layer.v1.tar+gzip",
	}
	ociIndex = shape{
		manifest: ociPlain.manifest, config: ociPlain.config, layer: ociPlain.layer,
		index: "application/vnd.oci.image.index.v1+json",
	}
)

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []descriptor `json:"manifests"`
}

// settings is what an image says about running it.
type settings struct {
	User       string            `json:"User,omitempty"`
	Env        []string          `json:"Env,omitempty"`
	Entrypoint []string          `json:"Entrypoint,omitempty"`
	Cmd        []string          `json:"Cmd,omitempty"`
	StopSignal string            `json:"StopSignal,omitempty"`
	Labels     map[string]string `json:"Labels,omitempty"`
}

type configuration struct {
	Architecture string   `json:"architecture"`
	OS           string   `json:"os"`
	Created      string   `json:"created"`
	Config       settings `json:"config"`
	RootFS       rootfs   `json:"rootfs"`
	History      []step   `json:"history"`
}

type rootfs struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

type step struct {
	Created   string `json:"created"`
	CreatedBy string `json:"created_by"`
}

type image struct {
	shape    shape
	settings settings
	layers   []layer
}

// put stores the image's documents and layers and gives what a tag should point to.
func (i image) put(s *store) (descriptor, error) {
	if i.shape.index == "" {
		return i.putManifest(s, runtime.GOARCH)
	}
	decoy := image{shape: i.shape, settings: settings{Cmd: []string{"/made-for-another-machine"}}}
	other, err := decoy.putManifest(s, foreign())
	if err != nil {
		return descriptor{}, err
	}
	ours, err := i.putManifest(s, runtime.GOARCH)
	if err != nil {
		return descriptor{}, err
	}
	document := index{SchemaVersion: 2, MediaType: i.shape.index, Manifests: []descriptor{other, ours}}
	return putJSON(s, i.shape.index, document)
}

// foreign is an architecture that this machine is not. Its image comes first in every index and holds nothing: a runtime that
// takes the first entry of an index cannot start anything.
func foreign() string {
	if runtime.GOARCH == "s390x" {
		return "amd64"
	}
	return "s390x"
}

func (i image) putManifest(s *store, architecture string) (descriptor, error) {
	config, err := putJSON(s, i.shape.config, i.configuration(architecture))
	if err != nil {
		return descriptor{}, err
	}
	document := manifest{SchemaVersion: 2, MediaType: i.shape.manifest, Config: config, Layers: []descriptor{}}
	for _, l := range i.layers {
		blob, err := s.put(i.shape.layer, l.blob)
		if err != nil {
			return descriptor{}, err
		}
		document.Layers = append(document.Layers, blob)
	}
	d, err := putJSON(s, i.shape.manifest, document)
	d.Platform = &platform{Architecture: architecture, OS: "linux"}
	return d, err
}

func (i image) configuration(architecture string) configuration {
	at := epoch.Format("2006-01-02T15:04:05Z")
	c := configuration{
		Architecture: architecture, OS: "linux", Created: at, Config: i.settings,
		RootFS: rootfs{Type: "layers", DiffIDs: []string{}}, History: []step{},
	}
	for _, l := range i.layers {
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, l.diffID)
		c.History = append(c.History, step{Created: at, CreatedBy: "conformance/images"})
	}
	return c
}

func putJSON(s *store, mediaType string, document any) (descriptor, error) {
	bytes, err := json.Marshal(document)
	if err != nil {
		return descriptor{}, err
	}
	return s.put(mediaType, bytes)
}
