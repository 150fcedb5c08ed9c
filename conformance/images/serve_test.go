// Tests of serving, with the real registry program in processes of their own.

package main

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const patience = 30 * time.Second

// TestMain lets the test binary stand in for the program itself: the tests of what outlives what need a process of its own.
func TestMain(m *testing.M) {
	if os.Getenv("RUN_AS_IMAGES") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

type served struct {
	command *exec.Cmd
	input   io.Closer
	address string
}

func serveCatalogue(t *testing.T) served {
	t.Helper()
	registry := registryProgram(t)
	root := t.TempDir()
	stored(t, filepath.Join(root, "images"))
	command := exec.Command(os.Args[0], "serve", "--registry", registry, "--images", filepath.Join(root, "images"),
		"--storage", filepath.Join(root, "storage"), "--certs-dir", filepath.Join(root, "certs.d"))
	command.Env = append(os.Environ(), "RUN_AS_IMAGES=1")
	command.Stderr = os.Stderr
	input, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	port, err := bufio.NewReader(output).ReadString('\n')
	if err != nil {
		t.Fatalf("no port was printed: %v", err)
	}
	return served{command, input, "127.0.0.1:" + strings.TrimSpace(port)}
}

func registryProgram(t *testing.T) string {
	t.Helper()
	for _, name := range []string{filepath.Join(built(), "bin", "docker-registry"), "docker-registry"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skip("there is no docker-registry: run conformance/setup")
	return ""
}

func (s served) awaitSilence(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", s.address)
		if err != nil {
			return
		}
		c.Close()
	}
	t.Fatalf("something still listens on %s", s.address)
}

func TestWhatIsServedCanBePulledByTagAndByDigest(t *testing.T) {
	s := serveCatalogue(t)
	client := http.Client{Timeout: patience}
	base := "http://" + s.address + "/v2/e2e-test-images/busybox/manifests/"
	request, err := http.NewRequest(http.MethodGet, base+"1.29-2", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", dockerList.index)
	byTag, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer byTag.Body.Close()
	text, err := io.ReadAll(byTag.Body)
	if err != nil || byTag.StatusCode != http.StatusOK {
		t.Fatalf("the tag is answered with %s (%v)", byTag.Status, err)
	}
	request.URL.Path = "/v2/e2e-test-images/busybox/manifests/" + digestOf(text)
	byDigest, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer byDigest.Body.Close()
	if byDigest.StatusCode != http.StatusOK || byDigest.Header.Get("Content-Type") != dockerList.index {
		t.Fatalf("the digest is answered with %s and %s", byDigest.Status, byDigest.Header.Get("Content-Type"))
	}
}

func TestTheRegistryEndsWhenItsInputCloses(t *testing.T) {
	s := serveCatalogue(t)
	s.input.Close()
	if err := s.command.Wait(); err != nil {
		t.Fatalf("ended with %v", err)
	}
	s.awaitSilence(t)
}

func TestNoRegistryIsLeftWhenTheProgramIsKilled(t *testing.T) {
	s := serveCatalogue(t)
	if err := s.command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	s.awaitSilence(t)
}

func TestARegistryThatDoesNotStartIsToldWithItsLog(t *testing.T) {
	_, err := startRegistry(t.Context(), "/bin/false", t.TempDir(), 0)
	if err == nil || !strings.Contains(err.Error(), "registry.log") {
		t.Fatalf("the error is %v", err)
	}
}
