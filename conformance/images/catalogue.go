// Every image that critest v1.36.0 names, under the name it uses, but one: test-image-digest is named by a digest, which nothing
// rebuilt can have.

package main

import (
	"fmt"
	"path/filepath"
	"runtime"
)

const (
	e2e     = "registry.k8s.io/e2e-test-images/"
	staging = "gcr.io/k8s-staging-cri-tools/"
	library = "public.ecr.aws/docker/library/"
)

// parts are the things the images are made of, which setup has built or unpacked.
type parts struct {
	busybox  string // statically linked busybox
	programs string // directory of pause and nonewprivs
	packages string // root of the unpacked packages: nginx and its libraries
}

type named struct {
	image      image
	references []string
}

// layers are the finished ones, by what they add to an image.
type layers struct {
	busybox, group, nginx, site, escalate, pause layer
}

func (p parts) pack() (layers, error) {
	var l layers
	steps := []struct {
		into *layer
		make func() (*tree, error)
	}{
		{&l.busybox, func() (*tree, error) { return busyboxLayer(p.busybox) }},
		{&l.nginx, func() (*tree, error) { return nginxLayer(p.packages) }},
		{&l.escalate, func() (*tree, error) { return programLayer("bin/nonewprivs", 0o4755, p.program("nonewprivs")) }},
		{&l.pause, func() (*tree, error) { return programLayer("pause", 0o755, p.program("pause")) }},
		{&l.group, func() (*tree, error) { return groupLayer(), nil }},
		{&l.site, func() (*tree, error) { return siteLayer(12003), nil }},
	}
	for _, step := range steps {
		t, err := step.make()
		if err != nil {
			return l, err
		}
		if *step.into, err = t.pack(); err != nil {
			return l, err
		}
	}
	return l, nil
}

func (p parts) program(name string) string {
	return filepath.Join(p.programs, name)
}

func catalogue(l layers) ([]named, error) {
	all := append(l.servers(), l.users()...)
	marked, err := l.marked()
	return append(all, marked...), err
}

// servers are the images that specs run for what the program in them does.
func (l layers) servers() []named {
	nginx := settings{Env: env, Cmd: []string{"nginx", "-g", "daemon off;"}, StopSignal: "SIGQUIT"}
	return []named{
		{image{dockerList, shell, []layer{l.busybox}}, []string{e2e + "busybox:1.29-2"}},
		{image{dockerList, nginx, []layer{l.busybox, l.nginx}}, []string{e2e + "nginx:1.14-2"}},
		{image{dockerList, httpd, []layer{l.busybox}}, []string{e2e + "httpd:2.4.39-4"}},
		{
			image{dockerList, settings{Env: env, Entrypoint: []string{"/bin/nonewprivs"}}, []layer{l.busybox, l.escalate}},
			[]string{e2e + "nonewprivs:1.3"},
		},
		{
			image{dockerPlain, nginx, []layer{l.busybox, l.nginx, l.site}},
			[]string{staging + "hostnet-nginx-" + runtime.GOARCH + ":latest"},
		},
		{
			image{ociIndex, settings{User: "65535:65535", Entrypoint: []string{"/pause"}}, []layer{l.pause}},
			[]string{"registry.k8s.io/pause:3.9", "k8s.gcr.io/pause:3.9"},
		},
	}
}

var (
	env   = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	shell = settings{Env: env, Cmd: []string{"sh"}}
	// Specs want the word "httpd" in the log before anyone has asked for a page. The shell ends on SIGTERM only by its trap: it is
	// the first process of its pid namespace.
	httpd = settings{Env: env, Cmd: []string{
		"sh", "-c", "trap 'kill $!; exit 0' TERM; echo httpd serves /var/www on port 80; httpd -f -p 80 -h /var/www & wait",
	}}
)

// users are the images whose USER the specs read.
func (l layers) users() []named {
	var all []named
	for name, user := range map[string]string{
		"test-image-user-uid": "1002", "test-image-user-username": "www-data",
		"test-image-user-uid-group": "1003:1004", "test-image-user-username-group": "www-data:1004",
	} {
		run := settings{User: user, Env: env, Cmd: []string{"sh"}}
		all = append(all, named{image{ociPlain, run, []layer{l.busybox}}, []string{staging + name + ":latest"}})
	}
	run := settings{User: "1000", Env: env, Cmd: []string{"sh"}}
	group := image{ociPlain, run, []layer{l.busybox, l.group}}
	return append(all, named{group, []string{staging + "test-image-predefined-group:latest"}})
}

// marked are the images that specs only pull, list and remove, and those of the image benchmarks.
func (l layers) marked() ([]named, error) {
	wanted := []struct {
		mark       string
		shape      shape
		references []string
	}{
		{"test-image-latest", ociIndex, []string{staging + "test-image-latest:latest"}},
		{"test-image-tag", dockerList, []string{staging + "test-image-tag:test"}},
		{"test-image-tag-all", ociIndex, []string{staging + "test-image-tag:all"}},
		{"test-image-1", dockerPlain, []string{staging + "test-image-1:latest"}},
		{"test-image-2", dockerPlain, []string{staging + "test-image-2:latest"}},
		{"test-image-3", dockerPlain, []string{staging + "test-image-3:latest"}},
		{"test-image-tags", dockerPlain, tagged(staging+"test-image-tags", "1", "2", "3")},
		{"benchmark-glibc-1.35.0", ociIndex, tagged(library+"busybox", "1.35.0-glibc")},
		{"benchmark-uclibc", ociIndex, tagged(library+"busybox", "1-uclibc", "1")},
		{"benchmark-glibc", ociIndex, tagged(library+"busybox", "1-glibc")},
		{"benchmark-musl", ociIndex, tagged(library+"busybox", "1-musl")},
	}
	var all []named
	for _, w := range wanted {
		mark, err := markLayer(w.mark).pack()
		if err != nil {
			return nil, err
		}
		all = append(all, named{image{w.shape, shell, []layer{l.busybox, mark}}, w.references})
	}
	return all, nil
}

func tagged(repository string, tags ...string) []string {
	var references []string
	for _, tag := range tags {
		references = append(references, fmt.Sprintf("%s:%s", repository, tag))
	}
	return references
}
