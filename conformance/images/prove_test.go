// These tests run the images that setup has built under runc and look at what the specs will look at. What fails here would look
// like a fault of the runtime under critest.

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// built is where setup leaves its results.
func built() string {
	if out := os.Getenv("CONFORMANCE_OUT"); out != "" {
		return out
	}
	return filepath.Join("..", "..", "target", "conformance")
}

type container struct {
	id, bundle string
	log        string // file that has what it wrote
}

// how is a container's difference from one with all of the usual.
type how struct {
	args         []string
	uid          int
	groups       []int
	capabilities []string // nil: the usual ones
	masked       []string
	readonly     []string
	readonlyRoot bool
	noNewPrivs   bool
	hostNetwork  bool
}

func usual() []string {
	return strings.Fields("CAP_CHOWN CAP_DAC_OVERRIDE CAP_FSETID CAP_FOWNER CAP_MKNOD CAP_NET_RAW CAP_SETGID CAP_SETUID " +
		"CAP_SETFCAP CAP_SETPCAP CAP_NET_BIND_SERVICE CAP_SYS_CHROOT CAP_KILL CAP_AUDIT_WRITE")
}

// start runs the image of that name in the background. Without args it runs what the image says.
func start(t *testing.T, reference string, h how) container {
	t.Helper()
	c := unpack(t, reference, &h)
	t.Cleanup(func() { _ = exec.Command("runc", "delete", "-f", c.id).Run() })
	log, err := os.Create(c.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	command := exec.CommandContext(ctx, "runc", "run", "-d", "--bundle", c.bundle, c.id)
	command.Stdout, command.Stderr = log, log
	if err := command.Run(); err != nil {
		t.Fatalf("runc cannot run %s: %v: %s", reference, err, c.wrote(t))
	}
	return c
}

func unpack(t *testing.T, reference string, h *how) container {
	t.Helper()
	if _, err := exec.LookPath("runc"); err != nil || os.Getuid() != 0 {
		t.Skip("needs runc and root")
	}
	s, err := openStore(filepath.Join(built(), "images"))
	if err != nil {
		t.Skip("the images are not built: ", err)
	}
	root := t.TempDir()
	id := strings.ReplaceAll(strings.Trim(root, "/"), "/", "-")
	c := container{id: id, bundle: root, log: filepath.Join(root, "log")}
	for _, d := range s.names {
		if d.reference() == reference {
			c.fill(t, s, manifestOf(t, s, d), h)
			return c
		}
	}
	t.Fatalf("%s is not among the images", reference)
	return c
}

func (c container) fill(t *testing.T, s *store, m manifest, h *how) {
	t.Helper()
	rootfs := filepath.Join(c.bundle, "rootfs")
	if err := os.Mkdir(rootfs, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, l := range m.Layers {
		if out, err := exec.Command("tar", "-xpzf", s.path(l), "-C", rootfs).CombinedOutput(); err != nil {
			t.Fatalf("cannot unpack: %v: %s", err, out)
		}
	}
	text, err := s.get(m.Config)
	if err != nil {
		t.Fatal(err)
	}
	var image configuration
	if err := json.Unmarshal(text, &image); err != nil {
		t.Fatal(err)
	}
	if h.args == nil {
		h.args = append(image.Config.Entrypoint, image.Config.Cmd...)
	}
	config, err := json.Marshal(h.bundle(image.Config.Env))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.bundle, "config.json"), config, 0o600); err != nil {
		t.Fatal(err)
	}
}

type object = map[string]any

func (h *how) bundle(env []string) object {
	if h.capabilities == nil {
		h.capabilities = usual()
	}
	namespaces := []object{{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}}
	if !h.hostNetwork {
		namespaces = append(namespaces, object{"type": "network"})
	}
	sets := object{"bounding": h.capabilities}
	if h.uid == 0 {
		sets["effective"], sets["permitted"] = h.capabilities, h.capabilities
	}
	return object{
		"ociVersion": "1.0.2",
		"process": object{
			"args": h.args, "env": env, "cwd": "/", "capabilities": sets, "noNewPrivileges": h.noNewPrivs,
			"user": object{"uid": h.uid, "gid": h.uid, "additionalGids": h.groups},
		},
		"root":     object{"path": "rootfs", "readonly": h.readonlyRoot},
		"hostname": "conformance",
		"mounts": []object{
			{"destination": "/proc", "type": "proc", "source": "proc"},
			{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": []string{"nosuid", "mode=755"}},
			{"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": []string{"ro"}},
		},
		"linux": object{"namespaces": namespaces, "maskedPaths": h.masked, "readonlyPaths": h.readonly},
	}
}

func (c container) wrote(t *testing.T) string {
	t.Helper()
	return read(t, c.log)
}

type answer struct {
	stdout, stderr string
	code           int
}

func (c container) exec(t *testing.T, args ...string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var stdout, stderr bytes.Buffer
	command := exec.CommandContext(ctx, "runc", append([]string{"exec", c.id}, args...)...)
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil && command.ProcessState == nil {
		t.Fatal(err)
	}
	return answer{stdout.String(), stderr.String(), command.ProcessState.ExitCode()}
}

// await asks again until the answer is right.
func await(t *testing.T, what string, right func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if right() {
			return
		}
	}
	t.Fatalf("%s: not within %s", what, patience)
}

func (c container) awaitEnd(t *testing.T) {
	t.Helper()
	await(t, "the container ends", func() bool { return !c.running() })
}

func (c container) running() bool {
	out, err := exec.Command("runc", "state", c.id).Output()
	return err == nil && strings.Contains(string(out), `"status": "running"`)
}

func (c container) kill(t *testing.T, signal syscall.Signal) {
	t.Helper()
	if out, err := exec.Command("runc", "kill", c.id, fmt.Sprint(int(signal))).CombinedOutput(); err != nil {
		t.Fatalf("cannot kill: %v: %s", err, out)
	}
}

const busybox = e2e + "busybox:1.29-2"

func idle() how { return how{args: []string{"sleep", "1000"}} }

func TestTheShellSaysOfAMaskedProgramWhatTheSpecWants(t *testing.T) {
	h := idle()
	h.masked = []string{"/bin/ls"}
	got := start(t, busybox, h).exec(t, "/bin/sh", "-c", "ls")
	if got.stderr != "/bin/sh: ls: Permission denied\n" || got.code == 0 {
		t.Fatalf("it says %q and ends with %d", got.stderr, got.code)
	}
}

func TestWritingToReadonlyPathsFailsInTheWordsOfTheSpecs(t *testing.T) {
	h := idle()
	h.readonly = []string{"/tmp"}
	got := start(t, busybox, h).exec(t, "touch", "/tmp/test")
	if got.stderr != "touch: /tmp/test: Read-only file system\n" || got.code == 0 {
		t.Errorf("it says %q and ends with %d", got.stderr, got.code)
	}
	c := start(t, busybox, how{readonlyRoot: true, args: []string{"sh", "-c", "touch test.go && [ -f test.go ] && echo 'Found'"}})
	c.awaitEnd(t)
	if c.wrote(t) != "touch: test.go: Read-only file system\n" {
		t.Errorf("it says %q", c.wrote(t))
	}
}

func TestPingWithoutItsCapabilityTellsThatPermissionIsDenied(t *testing.T) {
	h := idle()
	h.capabilities = strings.Fields(strings.ReplaceAll(strings.Join(usual(), " "), "CAP_NET_RAW ", ""))
	got := start(t, busybox, h).exec(t, "ping", "127.0.0.1")
	if got.stdout == "" || !strings.Contains(got.stderr, "permission denied") || got.code == 0 {
		t.Fatalf("it says %q and %q and ends with %d", got.stdout, got.stderr, got.code)
	}
}

func TestABridgeIsMadeOnlyWithTheCapabilityForIt(t *testing.T) {
	if got := start(t, busybox, idle()).exec(t, "brctl", "addbr", "foobar"); got.code == 0 {
		t.Error("a bridge was made without CAP_NET_ADMIN")
	}
	h := idle()
	h.capabilities = append(usual(), "CAP_NET_ADMIN")
	if got := start(t, busybox, h).exec(t, "brctl", "addbr", "foobar"); got.code != 0 {
		t.Errorf("no bridge with CAP_NET_ADMIN: %s", got.stderr)
	}
}

func TestTopRunsWithoutATerminalAndEndsOnSigterm(t *testing.T) {
	for _, args := range [][]string{{"top"}, {"sh", "-c", "top"}} {
		c := start(t, busybox, how{args: args})
		await(t, "top shows something", func() bool { return strings.Contains(c.wrote(t), "PID") })
		c.kill(t, syscall.SIGTERM)
		c.awaitEnd(t)
	}
}

func TestTheCommandsOfTheSpecsAnswerAsTheSpecsWant(t *testing.T) {
	h := idle()
	h.groups = []int{1234, 5678}
	c := start(t, busybox, h)
	for _, want := range []struct {
		command []string
		stdout  string
	}{
		{[]string{"echo", "-n", "hello"}, "hello"},
		{[]string{"hostname"}, "conformance\n"},
		{[]string{"sh", "-c", "pgrep no-such-process || true"}, ""},
		{[]string{"pgrep", "sleep"}, "1\n"},
		{[]string{"id", "-G"}, "0 1234 5678\n"},
		{[]string{"id", "-nu"}, "root\n"},
		{[]string{"sh", "-c", "echo $(id -u):$(id -g)"}, "0:0\n"},
		{[]string{"pidof", "sleep", "||", "true"}, "1\n"},
		{[]string{"ls", "-A", "/var/www"}, "index.html\n"},
	} {
		got := c.exec(t, want.command...)
		if got.stdout != want.stdout || got.stderr != "" {
			t.Errorf("%q says %q and %q, not %q", want.command, got.stdout, got.stderr, want.stdout)
		}
	}
	if got := c.exec(t, "ipcs", "-m"); got.code != 0 || !strings.Contains(got.stdout, "Shared Memory") {
		t.Errorf("ipcs says %q and %q", got.stdout, got.stderr)
	}
	if got := c.exec(t, "netstat", "-ln"); got.code != 0 || got.stderr != "" {
		t.Errorf("netstat says %q and %q", got.stdout, got.stderr)
	}
}

func TestNonewprivsBecomesRootUnlessItMustNot(t *testing.T) {
	for forbidden, want := range map[bool]string{false: "Effective uid: 0\n", true: "Effective uid: 1000\n"} {
		c := start(t, e2e+"nonewprivs:1.3", how{uid: 1000, noNewPrivs: forbidden})
		c.awaitEnd(t)
		if c.wrote(t) != want {
			t.Errorf("with no_new_privs %v it says %q, not %q", forbidden, c.wrote(t), want)
		}
	}
}

func TestNginxServesAndIsFoundAsTheSpecsLookForIt(t *testing.T) {
	c := start(t, e2e+"nginx:1.14-2", how{})
	await(t, "nginx serves", func() bool { return c.exec(t, "wget", "-q", "-O-", "http://127.0.0.1:80/").stdout == "nginx\n" })
	pid := c.exec(t, "sh", "-c", "while [ ! -f /var/run/nginx.pid ]; do sleep 1; done && cat /var/run/nginx.pid").stdout
	if found := c.exec(t, "pidof", "nginx", "||", "true").stdout; !strings.Contains(found, strings.TrimSpace(pid)) {
		t.Errorf("pidof says %q, nginx.pid %q", found, pid)
	}
	got := c.exec(t, "sh", "-c", `while ! cat /proc/1/cmdline | grep "master process"; do sleep 1; done`)
	if got.code != 0 || got.stderr != "" {
		t.Errorf("looking for the master process says %q and ends with %d", got.stderr, got.code)
	}
	c.kill(t, syscall.SIGQUIT)
	c.awaitEnd(t)
	if !strings.Contains(c.wrote(t), "GET /") {
		t.Errorf("the request is not in the log: %q", c.wrote(t))
	}
}

func TestTheWebServerOfTheHostsNetworkServesOnItsPort(t *testing.T) {
	c := start(t, staging+"hostnet-nginx-"+runtime.GOARCH+":latest", how{hostNetwork: true})
	client := http.Client{Timeout: patience}
	await(t, "nginx serves on 12003: "+c.wrote(t), func() bool {
		response, err := client.Get("http://127.0.0.1:12003/")
		if err != nil {
			return false
		}
		defer response.Body.Close()
		page, err := io.ReadAll(response.Body)
		return err == nil && string(page) == "nginx\n"
	})
}

func TestHttpdIsInItsLogBeforeItIsAskedAndEndsOnSigterm(t *testing.T) {
	c := start(t, e2e+"httpd:2.4.39-4", how{})
	await(t, "the log has httpd", func() bool { return strings.Contains(c.wrote(t), "httpd") })
	await(t, "httpd serves", func() bool {
		return c.exec(t, "wget", "-q", "-O-", "http://127.0.0.1:80/").stdout == "conformance\n"
	})
	c.kill(t, syscall.SIGTERM)
	c.awaitEnd(t)
}

func TestPauseWaitsAndEndsOnSigterm(t *testing.T) {
	c := start(t, "registry.k8s.io/pause:3.9", how{uid: 65535})
	if !c.running() {
		t.Fatalf("it does not wait, and says %q", c.wrote(t))
	}
	// A signal that comes before the program has its handlers is lost on the first process of a pid namespace.
	await(t, "pause ends", func() bool {
		_ = exec.Command("runc", "kill", c.id, "TERM").Run()
		return !c.running()
	})
}
