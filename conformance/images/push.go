// Putting the images into a registry over its HTTP interface (OCI distribution specification). Loopback only, without
// credentials: this is no client for real registries.

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// pusher writes to the repository at base, which is http://HOST/v2/REPOSITORY.
type pusher struct {
	client *http.Client
	store  *store
	base   string
}

// pushAll puts every image under its path upstream, without the host: one registry stands for all of them.
func pushAll(ctx context.Context, s *store, address string) error {
	client := &http.Client{Timeout: time.Minute}
	for _, d := range s.names {
		_, path, _ := strings.Cut(d.reference(), "/")
		repository, tag, _ := strings.Cut(path, ":")
		p := pusher{client, s, "http://" + address + "/v2/" + repository}
		if err := p.push(ctx, d, tag); err != nil {
			return fmt.Errorf("cannot push %s: %w", d.reference(), err)
		}
	}
	return nil
}

// push puts what d points to under name, a tag or d's digest, after all that it refers to.
func (p pusher) push(ctx context.Context, d descriptor, name string) error {
	document, err := p.store.get(d)
	if err != nil {
		return err
	}
	var refers struct {
		Config    *descriptor
		Layers    []descriptor
		Manifests []descriptor
	}
	if err := json.Unmarshal(document, &refers); err != nil {
		return err
	}
	for _, child := range refers.Manifests {
		if err := p.push(ctx, child, child.Digest); err != nil {
			return err
		}
	}
	blobs := refers.Layers
	if refers.Config != nil {
		blobs = append(blobs, *refers.Config)
	}
	for _, blob := range blobs {
		if err := p.pushBlob(ctx, blob); err != nil {
			return err
		}
	}
	_, err = p.send(ctx, http.MethodPut, p.base+"/manifests/"+name, d.MediaType, document, http.StatusCreated)
	return err
}

func (p pusher) pushBlob(ctx context.Context, d descriptor) error {
	if _, err := p.send(ctx, http.MethodHead, p.base+"/blobs/"+d.Digest, "", nil, http.StatusOK); err == nil {
		return nil
	}
	content, err := p.store.get(d)
	if err != nil {
		return err
	}
	header, err := p.send(ctx, http.MethodPost, p.base+"/blobs/uploads/", "", nil, http.StatusAccepted)
	if err != nil {
		return err
	}
	target, err := uploadTarget(p.base, header.Get("Location"), d.Digest)
	if err != nil {
		return err
	}
	_, err = p.send(ctx, http.MethodPut, target, "application/octet-stream", content, http.StatusCreated)
	return err
}

// uploadTarget adds the digest to the place that the registry named, which may be relative and have a query already.
func uploadTarget(base, location, digest string) (string, error) {
	from, err := url.Parse(base)
	if err != nil {
		return "", err
	}
	target, err := from.Parse(location)
	if err != nil {
		return "", err
	}
	query := target.Query()
	query.Set("digest", digest)
	target.RawQuery = query.Encode()
	return target.String(), nil
}

func (p pusher) send(ctx context.Context, method, target, kind string, body []byte, want int) (http.Header, error) {
	request, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if kind != "" {
		request.Header.Set("Content-Type", kind)
	}
	response, err := p.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	said, err := io.ReadAll(io.LimitReader(response.Body, 4096))
	if err == nil && response.StatusCode != want {
		err = fmt.Errorf("%s %s was answered with %s: %s", method, target, response.Status, said)
	}
	return response.Header, err
}
