// What is inside the images: a busybox system, and layers to put on it. Only the files that the specs look at or that the
// programs cannot do without.

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

const users = `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
`

const groups = `root:x:0:
daemon:x:1:
www-data:x:33:
nobody:x:65534:
`

// busyboxLayer has every applet in /bin as a hard link. Not as symlinks: the MaskedPaths spec mounts over /bin/ls, and a mount
// over a symlink lands on what it points to, which would hide the whole of busybox.
func busyboxLayer(program string) (*tree, error) {
	body, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	applets, err := appletsOf(program)
	if err != nil {
		return nil, err
	}
	t := skeleton()
	t.file("bin/busybox", 0o755, body)
	for _, applet := range applets {
		t.hardlink("bin/"+applet, "bin/busybox")
	}
	t.hardlink("usr/bin/env", "bin/busybox")
	return t, nil
}

// skeleton has no /proc, /sys and /dev/pts, as the image it stands for: a runtime makes its mount points itself.
func skeleton() *tree {
	t := newTree()
	for _, name := range []string{"bin", "dev", "etc", "home", "usr", "usr/bin", "usr/sbin", "var", "var/www"} {
		t.dir(name, 0o755)
	}
	t.dir("root", 0o700)
	t.dir("tmp", 0o1777)
	t.file("etc/passwd", 0o644, []byte(users))
	t.file("etc/group", 0o644, []byte(groups))
	t.file("var/www/index.html", 0o644, []byte("conformance\n"))
	return t
}

func appletsOf(program string) ([]string, error) {
	out, err := exec.Command(program, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("cannot ask %s for its applets: %w", program, err)
	}
	applets := strings.Fields(string(out))
	for _, needed := range neededApplets {
		if !slices.Contains(applets, needed) {
			return nil, fmt.Errorf("%s lacks the applet %q, which specs call: see busybox.config", program, needed)
		}
	}
	return applets, nil
}

// neededApplets is every command that a spec of critest v1.36.0 runs in a container.
var neededApplets = []string{
	"[", "brctl", "cat", "chmod", "dd", "echo", "grep", "hostname", "httpd", "id", "ipcs", "ls", "mkdir", "mount", "netstat",
	"pgrep", "pidof", "ping", "sh", "sleep", "top", "touch",
}

// groupLayer puts the user default-user (1000) into the group group-defined-in-image (50000) for the SupplementalGroupsPolicy specs.
func groupLayer() *tree {
	t := newTree()
	t.file("etc/passwd", 0o644, []byte(users+"default-user:x:1000:1000::/home:/bin/sh\n"))
	t.file("etc/group", 0o644, []byte(groups+"default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n"))
	return t
}

// markLayer makes an image differ from all others. The image specs compare lists of tags, and two names of equal content would
// be one image with both tags.
func markLayer(mark string) *tree {
	t := newTree()
	t.file(mark, 0o644, []byte(mark+"\n"))
	return t
}

func programLayer(name string, mode int64, program string) (*tree, error) {
	body, err := os.ReadFile(program)
	t := newTree()
	t.file(name, mode, body)
	return t, err
}

const nginxConf = `user www-data;
worker_processes 1;
pid /var/run/nginx.pid;
events {
}
http {
	default_type text/html;
	access_log /dev/stdout;
	include /etc/nginx/conf.d/*.conf;
}
`

// nginxLayer takes nginx and the libraries it is linked to out of the unpacked packages under root. Real nginx, not another web
// server of that name: specs read /var/run/nginx.pid, look for the process name and for "master process" in the command line.
func nginxLayer(root string) (*tree, error) {
	t := newTree()
	if err := addProgram(t, root, "usr/sbin/nginx"); err != nil {
		return nil, err
	}
	for _, name := range []string{"etc/nginx", "etc/nginx/conf.d", "run", "var/lib/nginx", "var/log/nginx", "srv"} {
		t.dir(name, 0o755)
	}
	t.symlink("var/run", "/run")
	t.symlink("var/log/nginx/access.log", "/dev/stdout")
	t.symlink("var/log/nginx/error.log", "/dev/stderr")
	t.file("etc/nginx/nginx.conf", 0o644, []byte(nginxConf))
	t.file("srv/index.html", 0o644, []byte("nginx\n"))
	addSite(t, 80)
	return t, nil
}

func siteLayer(port int) *tree {
	t := newTree()
	addSite(t, port)
	return t
}

func addSite(t *tree, port int) {
	site := fmt.Sprintf("server {\n\tlisten %d;\n\troot /srv;\n}\n", port)
	t.file("etc/nginx/conf.d/default.conf", 0o644, []byte(site))
}

// addProgram adds a program of root with its loader and libraries, each under the path where the loader looks for it.
func addProgram(t *tree, root, program string) error {
	needed, err := closure(root, program)
	if err != nil {
		return err
	}
	for _, name := range append(needed, program) {
		body, err := readBeneath(root, name)
		if err != nil {
			return err
		}
		t.file(name, 0o755, body)
	}
	return nil
}

// readBeneath follows the symlinks of a package, which are absolute within root.
func readBeneath(root, name string) ([]byte, error) {
	for range 8 {
		target, err := os.Readlink(filepath.Join(root, name))
		if err != nil {
			return os.ReadFile(filepath.Join(root, name))
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(name), target)
		}
		name = strings.TrimPrefix(filepath.Clean("/"+target), "/")
	}
	return nil, fmt.Errorf("%s/%s is a symlink to a symlink to no end", root, name)
}
